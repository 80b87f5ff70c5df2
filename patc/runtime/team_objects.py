"""`patc.runtime.team.team_text` as object files, compressed: what runs a model needs no compiler.

test_linking.py makes them anew.
"""

from __future__ import annotations

from patc.runtime.object_code import AARCH64, X86_64

OBJECTS = {
    X86_64: (
        "c-qaFZEPIH8GvW^)|XS7+?_}onbyK?2_k8QYZIi{O=Ni;o9snba2p$v^08Up?b%n~m+tmR92LdroWS-1n6^MwkeVMsqU8^1E0m-qIm^gSO92"
        "xia3n-3KB~5^z)8TNit6p`-OTN~lUe$QA3e#pGta#9&O7hN?3@quMQ;}c0nv|ux{%XzKHcj;n|yx-OUif4ckMJUN6h8pD2&jgTn=`gFUprEt"
        "uw{Tk<)ZaBGf!lZ7j;x?b7K#<5tvMIysJ?=J~$%N_$1N-oaycNOIZVId9D0Bi}Ep(}~H4H<#~}4*tp5*sqwMM~+i{RSk+cbMhhlJYiYZ0b9e"
        "IQhFsYooJ<tg_==&#obp<P!(k%)ZC3a=ghZ5+ZPu@$J&dR@p?*qiBbnLzTWTj%N<VJn%g~%HQV}}ab)-5gf^#r!uIK6XewY$DJLo1va)!?Y)"
        "#*cQg@XzX<;poT64R=mImzr$OAhg=Ie_27L;<F|FXS!<d5}Oxc##zhmL*6SRFO3Q?{IJom==P)Z?@jv(f29%{Irn@@8wsSr3O27;Y{{%}W+A"
        "t=(#0!fNXh?MryVJ@UPF#P4%OtC#L?5bqEtz_M2~`r4P2KhSRE<@(z7mSddbhpK+XywGbdL0!G&O-gwX@6U>w%d$0Cwb%B_IXhq6`5{aXD&|"
        "LyiL=$(aZD*~L7|BkT;c02Z&1t+l+yILV!j(O{}w6DEJn>wp_eZ}r=PMbjbXT3jg>VgpLWL<<ZrLp(bxIOgUwO%iekR!WL?z!H{Q*`O0gkg%"
        "`UvbEWFUf%Q-t>2P;NMc~qabBXwUbR<k~P^?x+u`lCVXhpsfI%$X}-X`F9mvGYu5;#J(~Tr@7>vb(kTuh88UXI5w<`oHbWGH$8$&6T(yx%=N"
        "eJ$Y~`H1UjGr!-FncA8hAOy_*)$;v}lk%ZU!*;HVv7_TM8xGO16jaLiDt|T0YVz+Ewkf%QJy|`?iKU>)rda0?aWq#WuQkRnn&I}ywZI3i{xd"
        "0C2U+X1@zJ$+O`u^De10?JV3r(w51SWBI+=f{bkh`BYdV=AeV51ytDM^p{9v8)dU}F^pYQy%N0Wfb9ZR`k!N3f7RZh&zgV~;)lbI`wmGyZ$f"
        "zlApXgW=so|2Z(enlt}X&`;D4zhGF52LrvfPr!@xO)%bLZ?&Z-xIqrKmHdYr9+MvT9TLT<;D#!;{UB36Y{h@~0zHR$dU}Fwa<D@Vc9&Kh_CH"
        "GWky8NwJqzYH()Ra*;X~rK)&3pM9PwiuwCTUR_WBz$@+yD0wBnFRhpPMi5a_uA_xo8eV2?|pGadrt-@}`+^I$y~KUzPJi5=UiC&bCB71)R`%"
        "D1gpmxL}_yfNQ3*?`a!_)i3!=HXL>?_u(6L9p*a4RwD>gkK`Oh2a-bjW;oTg2*F=&k{cFx>F(a0pS(omOo1D3`=hR|B&iu^xP`c<QGME-2X%"
        "D43IuaGxSTs!werIyqnSgd6oO?>ry)h$+~+)cfLMP^hk^!YVm47{5blrjXRzn=Ez=;`E_{45#~Iw?};{lkvRwaM1GE`|B%Sn{}Rzd<4Dhg_X"
        "($dqvt>`(LXM@>;I~U{Ra@AXFcRi4}RQ(-{hhHIS=`FJ@|II-v)P`f7e6*E+XI3;I8{M9`b?*ZwBM*pnp90ZvkHm^8YNuX&t}Ma9YP71O7Fj"
        "UliQ(G%waLoYr?U!)blr=AmbYhn@kz?GmHs)*cV}A2IUviz376x$-P)5Ba>{p=X}q^t}0y(L>LhiwviAv&?XM&a4vo`@J6UuL66%4LH1aY!U"
        "hU%8C5A{}^z1cPNW|JD(K!`~8*3-|w$I?EjsI{bxkJ|1XLB{8{JY=lMn-zb<wF-VF5b2D}CEG~nL={9(Yq3HVQad^>;RW8zEpGY$BSK+icJK"
        "VI(vz8=W0ksN*#JP#$e9{OI2FuaY(-^Fn1ix|V{*_D&{`Szg1&!3+#yr1x=8BX*6D8qAvACvg!z$u1L68<W~>HBk@;q?9ak;Fg8K9fAo!v=@"
        "n4E(U!gR6jVg!ebVzXdprLnBicyBJRWwvXX-zrSEO-S2UR)BD0ayRP8eiy)`<PV0<vdN0_+aGL)|7*5aCzcZYk+X0c`#9td2PT#|*5F63sYC"
        "$)&L?W3<8e@bE1CldF^12pRHN(iOalK&Vvp_7CE25lc#MD?ZpVu>nS_dgzdqA&tTl0EKYfTyYJ_EH@zYB(zH{6=-#n4_2e_?ZwmLD#rvAP1v"
        "?#-yVd^V;R3aB+Tguk=toV~J|DW=t$h5}O6(R41R=8A<89v{;3`J|plcxVVe_Urj9N)$6OBbm+A^$}~Z44pQd$_{BMIFQyxb=A<dG%Ac0Vp="
        "LiMHAWls9FVkaSNrgu~F2T$r^g=_B#e|!TZI1*M9LXtF(~ZuU|6~$NrCv;Bmtl8`a0u7;XVXyCYgbCtlV^)I?rO>j>{Cmy9EO;}7U@?AeTgA"
        "2kQy23293k<(+zL^4)q!+^EocpKUfevYN9&s07e*9;A9#RJLAaMzdde}fxE#QC*`>u62w*(Y9mKZKtGVeBu3ZjbdOrk`@=hk5f~VSbvhchg~"
        "_lU?umRiy5SVJpdRk^nd#5IJW8wK4blWZrt=i}$rjtiL<C^QHf>e^o%-|M&O$`Tk>N&(`MWm@pxQ%-_Wf1Q@y31it?&*VUdKg5$pc$A9*HPv"
        "qEnga`&C_wNIC{(k|jR}_T"
    ),
    AARCH64: (
        "c-pO5Uu+b|8UJQ?4R>dkIQVa=8y~6D+AdgBvQ=88^+9Nhh*hY25m9StInHa&Ioo%+TZjMgQSoqT)2MEN@Q}c@;=w*85>=@hOHOl1spJPDktk"
        "_-NSlM83M48~FvzIb?l*fgceCSJsSjCcyfeS~=KDY2%&jNB*Y|ym5a17iKS5<wc|t8hpZyIW<<jmyPtWfp(|2{!Ij=*$9di9IEq$8pC3W$4H"
        "3<8v;Q8L5{&8e^Iec<0OinGCS;QWlTJmS7mzR4&HJSdadVOB2&Gdh!*L7akTl2{L1f%;Ar^_PGR^(Y+Tn^9g+%mni`@N}xZvKrtJe&2`!eqz"
        "dr`Zky-Aj+OF5EypDBs6xDQ{n1hx2PG&!yE{7U-Iy-r7muKFECNgWMe-6tETV_>Y>Xw-)a>_Oo^Vqk-(tQLc*4M?y2(nJjq@aPI$+Md>I`d4"
        "MyQ`4F7>+#PUe3ivKMv;;yk{zWs}fqwHZ2C{k7D}eL?qzxcl0BLq0zg`lEzY7pvZ@{Ci1ZHNImtW<2oD%vxX7_YGKd)=~-=V&B$gd9h)giw+"
        "<kt?F{$Y&4O8`Bw7ya3r0NoFlmz#=uU4A{znZ5eQ$B^fJ#Gc0WRDZu?L&;9RV@JtezhevYF|{3AJ%I;3*nDUkLAzc-UUcm>y&(_G2bAtA#xk"
        "SzQa|ReqA#g$sSdPH<%_wnWWGIpe>Xwfv}vjjT`R|}sQVlq)ZRvHP1qWk?Ty%)ur)A0G-7MQ)_`pu<x#&hVr#<IfUTrQeP=J~VPk&IX`u&2)"
        "c+d3uTndRTkm=F)#BmV=>?OZo*L?@PcP~)+2rVvb7WE8H?+`9b`|tc9Xrt1RJWTN%<$O6aDK{wZffIQUHd?^u^DZg&|q@@Dfr+lzNwDfXT+E"
        "5=Y1N(9&B{n==dV%*h}quM{ADXLwTJ9!bRMhSCRgj-kAT)i4C0CgE{fXRWNy<<pVhJhk9^)-s*~<BM)=u9kg?P=Tm6+R<wW1^y1-*PRwYY#Z"
        "cD!$g8v$O1X4Xho?om0=U0T0`XuKgiYd)XRw}B<DQtnoIi#+?>}0d{RPVTFY=+eNqz0)<8?>`oZO^)C3mOV=@*=RQ|;tw(b+%MI1Uncvl{zB"
        "Lf)inLpY}ELO2eT*Ok^x;Qk7*H37B;^_zjkv)S@KWA^azZ!u<zhu@yQR}Bwnj?&m;&2)0373$;bbqJqbdgS>VST|{0C!F}Tb`q>(*O;F{gPx"
        "Nw>Oal~U@gs!_Vsh?_`JPid~;T755#u#Y%ayQvesr;DGpmvhtPw?!+&vN0H4EC%g>KP{XmX9Mp|lGA&BE<fhNN{+t&ntqn$8Lt~%qR$I6oeO"
        "*ij^*VLXd0O<UHFz=J(()lC8xLq;-nlRqRI|CK|v%-9{V*Mw=*e)|Ft#8BbLt*}k!bUozbZx@HdX9Jc)@&-#o$|dJI8(EMLIPb2?}ux?9I6n"
        "Wt~s;j^;&MfKz~`%&#|AZjFYJUtT2BXD)LH-`OXAhuknogw=@6){<Ex_(=l1)=a<+t0p~gKZRhVw`d>5pjFcb$BJ{3eKr_?bVEDfo9+dD~P{"
        "Laze1g$~guln|jO)$=@K1&pz)hcHdiELaI6TAoOMEtx68$FK9p?q6r;oVv{S?D%C48LWA&LK82d^s2<r?f_a$nZmd3cWTF(f~f;%Kah%Y7nK"
        "iS$(-^j`St75F!akgLLj_Xb#t`d^Uh!C#?-&q{TGF#7A#{{Moe=Kp)fr=7U#!9N%tBJMiS%k?4d{r|v2|HGihpYxzU?t%Zo1AoGUf6jyc?;i"
        "LLW^YTCyKa2Pga1z%{e~)c9jWu6Cmwj1y}yJ6>jZqt1LyIk`=x=#i^YNO&wzwqWO$8)&+)vF@aqzPURQ2N{5gJ0;?MEh5`T{Ky2JUG>l1PFZ"
        "xQH3{w=~-<j?VXQt{hk;yEeF<$7$8<Z^tIB$wmel3b2&llb#Gx?RF~ocbiW8KGW@IHwOw`f&PZC7ja_NP2SmJrd684|w?Jh=+eN9{xG*;h#B"
        "~KYK38{Q0>q^JmXTGJl@0nwx()ZzP<bC$$pJ&yjk~tq<qZEa99_i-dDNLCvi{=hG(PoKL%ib3Pk1x4oRtCJE<!x+R?R=@aa266=qkzlc98=p"
        "*6-0)G)tYL$H#6!6oUdcWs1^?pC6srUPorrz%t1i6n3a^LcZ@2p3j6g=|eqKDt+JmP-IBY!S?<j+SQ{=edp51)ACRna4_u6xAsmPel4_Q<z+"
        "k9=G3$cJ`aoe$e|b)DI+tLsdkuC6n?bakB>(ADSHpsqf@Ms)T0mDJVe*AZQP{vOxW=WkY5pT95b>ht%U;J2>`emgJVZ312p@FxWPqM#=Y5x@"
        "V=33`h7B|%RSzbxn};<p94UlrsUMg{+xfY%u6I#6$@>p-)it^+NGx();dx#Dl)T>{=A);&ode*YMd^x^m(Ngs|6O8Rj8HA8*goio&RY06Nag"
        "Krq>I&<Do@1qNb`rLfWP}h@LL%r_`hWebnXsGMPoT1*Qmksqky<({EOGQI{FS=o<?@_l5^}Xn}p}t4W8|r(}LqmO!GOE<~rC?Phuf8tUHxGP"
        "7z&DELqkwmbareOaza<Rf{(2CS@bZ06!Y@eQAviuO{H_;q{(GPx;ru>bl<<&r&o9d*?t8c))stNk&c736B%FV5$VoW=-Byrr{`(Bl(U>)8rY"
        "$=%G&DRmY#(IEJ^@MEv6K}VG$Xd1G6$`+ok|>pwgVN)XmT8q5j$!|$5Sb5%r?uwh!uIka)w<gYb4TTTL)}N+mV#*=1K*@{s{g-RUneuH$IAd"
        "(va9cW+qdKsFhAb*IxXS7)?@%=GgeCSz?d|(~OTMqh@kE9aG_ZBdOG|l>(gFi?2ggDgi^|V^MoJF;?csltCK4Y~M&?Z)8NA7>&d&)3zd`kUp"
        "4>Mn*<B=};mSHyvO<_FyCtjYHR1!nV48@WW>|qPaMBnTtj`XnOdNwPI!vT_26%yj_`#TL;Z3_5_FzW0ADQylchGp;Tnl0<<VOJP6eA7py^a?"
        "3j(Ok^`{QHdy9DHA!00;i2JZ8QUjdT^MaUvKQY6N1b;nF&MEU@Fe2HWBa}fpU<;iqu+~GJ_}zgy|-#BzZ-~8f?=!V|5x(*EPZm4zgRuTu#kl"
        "Rihc6j#NK}Pb<!t&Cw_xrvJD}oP#aO}#h-6zCH*yz^|HS5_$LIE|F7M)O6_l%_I;w3zn!fwN(<!g@AP-9%6|pspv|P>ztsx=b!e)uzE~F-Va"
        "%xLy-u<If2l_9Mg"
    ),
}
