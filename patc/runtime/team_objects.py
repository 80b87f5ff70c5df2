"""`patc.runtime.team.team_text` as object files, compressed: what runs a model needs no compiler.

test_linking.py makes them anew.
"""

from __future__ import annotations

from patc.runtime.object_code import AARCH64, X86_64

OBJECTS = {
    X86_64: (
        "c-qaFdu$s;8o<Zvb!wG%?JKV!N|Qq2+7tL<T0ue(WK*YEx6vt(rcjmQ+t};GjbmH(x+MivBbU;}ZHYMX&k0Vw6A~x*gBHO-xzaicN;u#"
        "k1;krC#iJB~TS^N8Wtp{Syx&fCK|=h&O7_nD=9_Q6*UYZHt*d7h=W-!>xzIJp?3q`~IcB?qe4l|O`^9yA+P9MS!&3&1kCo17JDTtNW=w"
        "xBe=>ZC&WHzmP1~!jioTLR{5)<*+IvqI@LfCF6)XqKqW*eCU&9;I)pw*j%XwevR<HCFRiICA5O3Z%5g)tj%2GFfXIT~d@S1R3Tj>qgyY"
        "&_B!1n{Xu5U9|n6~Jf@HK@H3YI5K<9tm>IzUBAE?-jzYMa(x_jOk)zWu@cH+X$hMX?pB=l7cZQY%!yegbPY^qJ$x=)(yuX8V8<^NMfWt"
        "B*@hQ`kN?zi6taZ&Er;sX6J`S$0&Pz7e?8FWw-o6W8{IwU;FARVWp%&wa*NJbZ9=var3uaz*s*|Fb&3N7D}(a-#m)u`i$=vn^?jW~WDM"
        "F|8|IsZW~giTWGBaBZeXJD~&9f_m^2R$G?{p28D0h&PEhi;<0%Y=x+Q{n*1^tjQ@GUBOe*e`z=TOnvQo%QVi6Lsh?|y&uv}L0zHJa;em"
        "h{nLB28By=A+G|ARHKSgv_2HW6m$Xkz6Q`<s%QU6fj(po6v7|3lS}JKDOT~$Tq`e!~J`EQqD?Qpt80Gh2&<`0qkzu%7&6Pea9=7Hd)Ne"
        ">@?P~k__NE@~G~Ov@)%9rKV{h;d^n~@PV=prcA6sZwb4J4Oru0d>l{bw{ZLH;L%5AKEv<YuOnzUZao*maFPlKg#y_LAO=X~2=z@4^=dI"
        "E2|%ky9QZYZ0xe9O@9wll?qrPkNx;tg5fkF*}v_KC1wab2}leD{^bJ7y4%)&6bVJD!i5l>ic6sO}L-d)tV4zOzd^EslTf-ZvA{j=xe~<"
        "@?Wy_E2-Bb0^<!rrn%_Q@d*CigpXYS^J>AztFF{&Z5tct=A*hEq>R+d2_sDIQuIwTL|P*^+Q1LcM6T7&|KvAxOZ?|TxjeR{G#Bk4KKl;"
        "wP4;F+E^|4iyYS>cx#p#x^Dw=ZpJQS{C?11WHWvc^e>~0UctW}8)J;W3&!W$%>NPe<G?>ICU`@J40xa(vHIUBG<OP1MWLnGu*<WDzsHE"
        "gxUjT}E%CS-e_}w-E;~J)LW?N0ib6+m&aQ^tL?7Ah`12r`-$>in3H}}2%J~he%{kmxIC&E<{{N+yC&hUU{^Fb+9386q`z6qG8v6UK;Jp"
        "+#=W*uvKf!o)oo?zWcOPEGv7Ro+I(T$kw;OZM$}&Q?;tvNnt+Q^zTRc{K3WR5v`ufmiyaRda@!<*oobYCbzk_OgA;VKd9x;4B;RVaP6h"
        "dziUPe~=J=A{Q8t)L*&*(AiFy#GiYo0$Nc6v#lMt(cteuhU0?_l(QROJozb*Y`#l64E5wLb49dUz%dwLE%|eSRBeu}koLzm4ow$evF+$"
        "Qw_j1$c!rb6z}-YJ8eGCn|(jnDfEI+3Vj+<Y}GI^WsIqTU^$2B0%if>$08?#~tiXIQYBXK|bfe|K-3hcF=#1gZwKF{7eTuE(g8{jGqg5"
        "1aPCY=sw;Ccq5SC<DlnJz|VvB1AaExFDDpI^U1laobG!8@C$(c3mJKO9xP{g0qi5lX`QZh(6h-wkLt3<jh=G_2l=}hd3x<*I6a3Bvi6Y"
        "c1qVIfF`S-HJZIHI&!;~yoSsjM7*5ZnOF4Ug+W<cYzE1$&1o#Hd-mfvvKJWJfz8J_q;$Y_!4*ni?@b`ZX_P^?2|L2^2{1>?G>*or$eVv"
        "Eh_WNQJ;1>e@qkvxo_-??L0R9l*7X$v7gPqU2t$xwx%*TLV0`#18+vjTr@IM0i<-Ez40^Y@2_0Z>7g5fPhelx?H=`THo(=%|4x39Mcc>"
        "DT!nBl#IKgsaF68<d1>ApC^+n)pPF?@{v*TC?-bYC-kAALT0?9Z{YJ@)zS@YtW{n*d)1_&)&u6W}!7jZFRD$nXq!4}`o7p5u_y_kuFR>"
        "3hKk45#~u`bRl^{x>t6KL3XpPV4;N45#O3h1E~;;pZ4mU$t`4Ate^cDXJWgCsGM@l#oF{GU`xPkz)~ARkM+pl2fy3AQsK!QBsjND-oj="
        "$SO%WkW`ghR1~Ow=TteXT6Gv|(H0qh;f0Z$9n6m?DK&@ETT+osHXT)RITT0^;P3QE##keg%8x{98geKS86L?*Bbj_|$c_)l*=$0|B0My"
        "JZ(EgY8pZResG3Np>iUQ^ScXm;Or{6qBpeu#hn0w`$Rj8>nv2TGBo&RPv%`@p*n(RqnT`&lKq{>&f$qQbUxxj~eT%=?%PP$!wkoqmVmQ"
        "*#Av~^{W5dd5B#K)A(e99(Q%IDRp-4O{k0>M;qX{J$L)g1aB8H40Y*u18$|)7!YQew_s?IPeqeK(&M6}KZ0Sn+PtMUN8kB(ID$!t0%t1"
        "`M84<u59*P!3zI*&s(zus^ipGp4n<YvDw!fPX8>@S24hxK@-zs{WRx0`>2`ANdQt6oQRvg_@fNB$EdhRr3vExh1dFs{E7=4RI?^Om@N-"
        "mhg`{TXOGpZ^8_!!Bg||9+^!K7Oq1!P@)`lcu`gt;_)X3;#)%ef*{uSkJ||WG)-O#hmqAr&oapdU@;nKRf>?!j}%}"
    ),
    AARCH64: (
        "c-o~|U2Igx6+Uz4uCu$|5C<FE4W_nRrvaC^JlGPAXuTw~wFs(H>WWlCx?Xm#+11+K&F*!;{5n-1wj`>8;`~SjV^ut`R-;B$)5H=frj1k"
        "{h(sb1@j#Wu@L<$PO^HFE`ln~^&UojJ=k_I6n!PjMoH>7U=FHsL<3HN<V}lS74}tff(yBZ)O_h3-|AvurY0qDa^Sz`vPf7b%6s8I=xjV"
        "J=d7+!srCTZV1q1LxcMJVAw!GXovKCIBTe1p>J$h~_R46VlcSR#(yKm6iDWhg=_f1;Yev39wA@gxg_cKA4M4rvav$VL}*AMV+e>ghbL1"
        "28ocYASZ&)?3?Q0p_YaHbHffs?_-&kF?tolCtJicBZQuRjdaLe{rX7KL}#GMtsA-iz+|5^Zj0?;wnQ5`@V+L72f(x)VBTp*===(@Vd4E"
        "OaznIDz`;=z=6V-NWQQ(tKa-1MG8UJ+%G)|C7b&7|wWr+c)+Jxc!rNz@?eNcgdwC5S<P!T7^yM&(LDHFok-Bkv@#HVWbNq%}(UkO~UDm"
        "0DY|{JlafP`Y+4NZwftLmFi+H?@~H7PmQVHqrSDsuNL{$BEMSXw-Ls0eyzf90J@ULLWSD^oeRs$4JGtzEB0C4^wY!0^B!W);&`Ti$hDz"
        "tXUMgqY;VZ5h5MM<j-`&kgDxyVw2h!$FC#BDc9yQ20`3DwcLV2j%;;u*oVtO&WWHrOu=+6^Bge&(^+EC89*ogmqsa7OW7T;p(V)wN*;|"
        "jL0n0jWdp(v0EbF)*>ajFnS%+mF<uSk1V`;#$4og{&y7up*9uCIsB_sNvg!<3o`v$Xvc=et~Uo9R!U%YP-)YCvcX>pOl$p%-CNmmx*J!"
        "eFx3sum?blil#X1d)rU|P&g68q1Y(8+B4iW(owHa4P-#|=0+{|tP52H#9a;WHAP+%4*C4!f|hcD?J1N!MOx-vy&FeHZ1m6X+|^x+%7nW"
        "@-J@O?Pf^jbTi@TLmZY@pu4t{-F+BpErBv&y|O<a{=v~?|laCej4rHUR*r<p*v?R&XOqWBji<H3*}h4P2pMDt}w23i$J<10DTq-rN=PO"
        "RO6aBjxqld#(d~#b>U@{^Izn{Vw3sWjmKM%3A?e$*2?6aYPUY)uA6E%PD}3ksm68-fw!x%-a^RRY-|+UY+MxE;gxaaF~@Ozh548;AA|Z"
        "$!{V8OSZ9leKPcX<h6gMj**wovaO0pE$~p7Q(jza-8PLb(@VGly&Futp)-3la7|`|lG5YgD7}l~l*w}jMG12er9NAhhHinZsySA3+v@+"
        "J=SlQ=KqYlvri--U2`WwFHQzQ0|L%V?-`6g+KG(!uv8zq`oM5Sj<%WKBC`FhnvkZmj5K;2vL>049tnlWLr{=HIvP?5{}k4Wu}n*LK#dx"
        "xm(T~jk*miy03{f(OO*QK_z!l*pH4XX=M|22(`tjXxwq>c5gsO(y^rA+rm@Xhc<WHW;#x+YQYi)@Hi2;YiKtT|mH?3d`TX!JWJ^^c3nb"
        "CC^Y!NG~}>4@*Ve$N0f;Xli|K8k^;J_oQE5-#TaDff3Z{Z3Bb8Sv_NgyXL$adDlnGl~g~+$NLbH#y#-;GaPmZ&L6Srw0Z91INb{xmP(p"
        "177+QT+f8*^?$eEukdLgW%?fKo!?omXOMW~e2n8Y3T|;cs__4(iw9QZ3Jsp(a?cvx`1>vAV=8_q&#$>^zP=zTl}sP-q4&cdT7|cgN-mL"
        "~AAlae=tIARWi8r!S;-rJ<oH!3U;K;X3re1#hMxcLIDM3O^Tt0o{yg#Ki%o><L%ez7-#+@=KKAzc&=33Ir+x6pefXd7q5sGSul3<W{Pg"
        "GV^+>QDR_8;8OP?Amxml&3k?;)?F6Nc3qk1+kioe4OE^>QB!Al%}Siu(*{vzLqJQ7xLv92NtF4p<O3f@S({6&6fQuvE@i^5;vZ3=&ZZz"
        "dJLwaWXhB3Ib6Ly;@+9!0LecPVlOzE|Nd@@v0>i+N2bas_=-!3F)GqK}}@D!8C`6g>s~K?N7|ulo3B+{Zs}`S|CQkAF%kfBxK3`SWK^<"
        "?qR>5`X@*7+(G&{@N5=>@yn`T<kBK4X-|e&lUw2d^#0e@Y!m3^%s1$DY)PhRdB&)hvBtX@aa)-!Dp9(3qA?SUil0-DCsZbSxFxmcO?EY"
        "UN9=_?%NXnj-g-g?;HB{e%{cp_ZdUK-Y-jXAD84_@tNPNK5=r*Cr+;W_^sqK@3(y7XU->nzVPw?mp<_@?-N(|ed21tXC6(ekCPzP$6JK"
        "z<E@73;~`4*@vxWb^GrY0=a~f6=b0qc=NX6U_pc*VzkmIj>i4e#)$d>9RKNe8qWb-JlIr*0vsAzTo|pXg9m#K(B>V~adrZRRZ^P@7o-7"
        "2!xws_hDdV>!J!O1O(o@ERW<~BM`Fm2r+a<is)aQZCraljBG4*+%)70mIt&-gDN^+ADzFE$Diaz2T<0$$F{Gg(bz>g^U2>j2ce!n|!>h"
        "sc!sow`bH1&DrlBr)umreb?dBxP{ldGnF-CZ;F`|Nd7pEpXTex1&l`gQuHsXs5>H}&Tt@rk9Lqs)N*ToerG&ry+p{#;ZS(4V840{Zh(P"
        "e6a3&r0}{5`Id;JLLV*2Nyg|;=NUfD!8~m=vVN|()YEDi|>a?1z%9UI|Lq8z83`kyz*VJB3GQR6kOzu=M-Gr6O1XixNn$LaB+_U`FPS!"
        "Sb5ut4Gg4)Q_d(y_De|CN#^WW!iqUg&Pv#MCzlz8wu2SQcy<H^?bwU9#cCZndob4F*ascRJF%SO9nV<8ff)XvP>ALBj||zvP98D`hOKN"
        "a6Swnu=-7upnV~G>Z4HkMS!D)!u&ne@Hg07{@<|=OFP6)t>>Oa%K71Xra~T*I8IC)t%<u|7t_;$MVfzO&`(lG~$51S7TaFzYg8XPc9vd"
        "7Kqyw2;+H!#dScAb#JPjSg8OQGU$xnarB$|tDkGW{1i{?{@>{UGpbaFh2{Z6GXZI4=UtVxh)CS!S<d)H1{1G(6c&F5e=We+9*t;?noz?"
        "|@+oj@lKJNPO)11oKb6^=}+tQ}7cq~a^sehKTqId)?E@I5-@zH^yG%!$D^#8bojfB1E;fuX@*_du(kYv1sm`@y?BR-RvStV+RG^15=BW"
        "NPjgO!*#J<Q;y+*~8x<ej6E7?tS0jm}*0`%KKft>b{ykPZ(wW4WIF<zG{010qy^<JF4{lR%zcOdigzk{ERX{y-)uW(fjZHM(=$?h~M6+"
        "{%baLx4cLf^qw~uoAsLU{{zxW=S%"
    ),
}
