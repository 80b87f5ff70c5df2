"""`patc.runtime.team.team_text` as object files, compressed: what runs a model needs no compiler.

test_linking.py makes them anew.
"""

from __future__ import annotations

from patc.runtime.object_code import AARCH64, X86_64

OBJECTS = {
    X86_64: (
        "c-qaFZEPDw8i2>^jqB^Ry9RnFKtuu*(Q+b}(340?6=l<eu8|J{O^y^O+l{?WtT?u1uW3_+n&PB%<wA}4&>h?l#D|2$4?Yf|P@r|rC@Ci"
        ">y;5<hgeczvB0<`sTu;5rGP|Df&Q53H&;7WS;+=WkciwqFW@dM@t0!_3=ko!4`9KG7dc<|H)9ggQzlNI99nv2+8)w4C(i8{*P?Cy5`-!"
        "}Creq$@p9vqrL*ioNgxy$>%$xW_e}}Dzv3Ot{-i;GIt>xCTWd0M%ZsDb3pnXoCyGy!9QY!J%gEtg!<tN|O*Y?WB+3*y$XIqesnFG7w{S"
        "DJJcUcyW%7u4=m3T9rOl$<LWp`h$nJ_{XSHI8(^vimkezDDIn@6`)pe2`n5m<e4K#S9U!^+`;I2|;n<pUVrxIBOPY}MY3TuY5JXnqxon"
        "nwqS5c;izOMRQe#u3^0kkoRL{kAoE_^n#*-T7FM#8-Z&uZ$SxK}%0EkI#Qc+Hu;lQSWpjMvLQJ@dk6onGcqZaNJmm7^h9bwN|rr5t^-O"
        "v@XH{cS(0!72fKqPB)IPA4UiZzT{Pnp4LVAP23H?U7Nesa-4JWVB43ClikK5X{)=qPA>Mt_{@m0B$@rTzgAX`i;bPs`tViyW#cQy#aVl"
        "=IIa|K1meVtuJUyk*T}{fa-lLV8y|;_ufv6zg^2MZndOsY(hpiYi(;^A*UCI99dg&UL`-C~^|b$Re`Cb>mu!6Eth$KtZy3#FIbRnxXXi"
        "hlCZ2C#tvRb;lVx3$AJXQmN^PyyYSwSf{%s@NZ@6f^WGW3}u^)s=X1rA7+7F8p?^(GyYwD*K#8<A*&x?1Ionhiy@PFHxrSekk8_NeO%="
        "oudN|TG?#8cKj#p|SRvvH2pX`d4xFYi7FcsSLg)4}O{thy-1U5n!2xV>?#odgS!@05&_()17hmzRta$I2VU*Bd&T<~Hu-JDio^jDXeNx"
        "VNFh1z;gRt!+8h@xBV5|2uC7z8xW7!-{3W60G*`A!{J??!k>NA=D+*OF~nDf7rjD<NAbp8wIOkYfK+8ZXIsiEQE%kk|oy(xu5dKl0QcD"
        "S2E<U5&i3MqgM!RLH3XT!uTJFe!O;=2_Y^f1iP)A5D&tC5b`c7)TS<BjU==b0{iM7=J)&eaNM-8#>Q42B%Fs0@b7NI&OVl%E}=yd+9aW"
        "~uxwx8A!HBjYWVjTVthSr-zJ3ia2r<!Zg$3S-@~F+-h2PZ2Q$)&K&Y^64~Io|yk8P_&XVyi3PDTGbB<gj<bQy{SnFUlA%CuRz9K(1;Y@"
        "HP+Y9If_?c@1w8eu{CQIf&Z#4k$2>jy+j@RK6h;O6T*}Ttsm#M4ei%0x4;!PAk1**J(;uA<8P<$5gao0N$0AC<p25$Z5u>ZU}|94{hl%"
        "4B+RsByncisPs{0yQ#T4vx$#6uJxL%fr+f7a%K+Pv7$el%|{=U%TbAUiyjhibj*0K1NX^Xm@BhZwq-Kz<<{@icWFSnqijf0^3H0i<81_"
        "P@xn?Z1xfEKqhnM;zA|p99^<e#YnC|K~jX-v!t_?V)dY@F@>|wTJ!ZJ@h~J;G1x~b?$w>-oyR?(ht?S_x(j4`aTcdNXRcH^W(u^CHN|0"
        "{r`>Pcpo35INryf5d2cY{%J}d*Wd4RbG*MrisN;++Q+uD-os8e!L2QZ&#hh${W~dre2vo_ZODDJKj?bO!_Hxf<MZY?We1-(pHUp2H{Vk"
        "npELjQi1$~V!+%5ga~Z+O_m1Ck?6|gZ?7AljemS9kAIJ7{l4HlapJT`SXAl3M_3(d+W9R>Kj=g>Ye)c-Q#LwOr>j~aS*bfuDiQroaeg("
        "m|6Z}eoKj3Hk`J~?+7k+O1mEczqcHZ%`>ve?StI1~w@9?V$egW^cgP%+5Dc*w5J&NO8^idq2T`JFBZz-O=e(s}qFXDSCj@SR=6we_349"
        "`9XUZQvj@wX_BpP%ni96vul;@Rie*SyDhSm*F-h&){5!EYt_T7vH;__YMbb*QKI#Q?=|-gZzN$NMLW<9Meij^mx9_yYA_T=U20e*eN8z"
        "ZYzyI9~rxQyibG-%uQ%+d+=vC|_$Rj-SII7ai7ON>0<&cs!9x=wpZs5hSAzXEimZsJfn2Vp>kmrU|uZCJ!>I9#x|GY*tI@N)046^<K^H"
        "HfOb@+MLw29Xe>Xe{;H;)!mk@$-s6M{y=wtnjOlILUTEg-kwr2*>qIP<v??C5dNk|GuF&XDnF`JE#!crjErWYN+zEhX7NEan@wn007Zl"
        "Fwo}WdK|G&|>WOr!W)FD-b?~sEWO`6dl7dlnL{oH49R<0uTvSaav1&Y>9Z_ts9kxI+9UTG9skE*&Z@Q)bIv6kPyW)jW+BBEgshuZ@!Td"
        "*up<H)lBifh}g)IW%?y#EEP?oh}C7xABH2@>ZBx1k{{9Y{vGn>-kt(pMXz$Pp=GFmhdPef~Mh+xgI-nu#n?_;C(J(*3%R9yudpdgVN>H"
        "z<P>naW~zSiKryQq5a;m&_QB(EG|^p`@X$9z21Pdej6tnsf=pC<IX=@7C>&o{gR?K|Yya`a6SB+dtb&Y56U<~AL0zaM(VwT`PjJDKD8U"
        "x;7v0p|bf`2ahAwC=I$_zYDh5Jck#C_#|Yd*8>--}r^qdz;V6UyzYM>%ER+__+-!26^}Q0X_aFn{*5l"
    ),
    AARCH64: (
        "c-pO5ZEPGz8GdJX?cSZQsq1fosV~I^+Yl?2Y!Q&bm!v?HS|pgOB0;3h<-E?h{y6t;-F#9X5=d785^0?_LTz$I`C*?@DF`EM$)VR0B>$j"
        "NTBXn*fnL%GrBaa~xkQQZ2k-37+|7<>1wUA6Z+D-0=b86w-kIH-{^r29G(vzM1bzpVC*f$V+=kh2043M<|9-Bxm(1PKNmo&aTnA(aUtI"
        "er(@*M0-_{`FtAgkHL;45N_4UZ<Iyg1EW@Zq3bau_3nOk4)4F}VM*Y$>+R+}FDSg-H8skh~je1^$=m&;|4vkf^5tLu^C-W_vm``?+(>*"
        "k-y%DIfc7EX1pew67X(6jbP+x=Up2jzXdmU8=YI$W%yoNEv5xKH~O^tLW~^+Ec5A7pR)AdhF^wnku4h5JZ&aW~_Z+W_1C7j7y?amoQsT"
        "l#%)+OxO8k;&t=;K&jPFZx%_OegxuzZ%Ho(Eb3*2T(SEasiatgM9rYF#0w?WQzfhwxRBq*4JO<di+wj=P|mg>$#$?<$i_w)+1j%^3@|>"
        "J@R!xdT<1N{vtqc`~`pJ6M&wT_4Ve0UZ2~7ZDzmz!B3F$9%4^pf2zOVv7uzA-?5`)uivqyWVfH%j%Ndb2fcXu&^Cg0y@Xt}?+v{%2h0a"
        "l?mEUUt@Tqs=B}eJsc)$c^q!6{#(vGbG<R=5LEE%Bst@fe$E~3I91d!46Q0d@HZt3r@NCAjk@=ws&t^Ou@hswa)GtkVHsjfdXGxESu3e"
        "~yjrq8&g&!19{~LI{PVFFWy^H9p)e}o|_f3L&YN)3^x2nUbW=D^#GZy8(rG*zW)zC|I>_lHv-9FJ^k;f*E?Xw2-P#f>)+IymnEokGk2B"
        "(U<;JtHrr8;t-5npzY-_scO;z^&I9A9J|d#QbIX)U97al9@9kpj-e>nMLiZ_0h_#0F*#Vov<F8cy9~`2bG*p#dD9x4GiyjEA}N7TQ_dy"
        "9@2!iT3Z9TRm~vi5bnaIF9u$a+T&nIhX20y8<|$O#-8#Du|d>@MIe6M-9%2Y0UW_Vb1%1Sd;lFj`MHip}9$Y?d0Q4NCX@{I#;r{Yn=PM"
        "GjD2~JS{l$rv{%x1m3K{`w$^-(!ODQrv1YB94PlI^_j-`6<~b=tPkq92&?BZ<$1>J;m>bi%vMian!8&A4``0k*kg@!a-$6zMz`n?Ik)!"
        "6bGNWg(zs4L@oVcMShsF4KZ6Fnr(e*&mkB@}&5e#N%bR(-y=Q8BM(YT~_w;Tr#ktbgW>_f>J5h)5gVhs%aAKe;@3p-CA0GsA@-fmHY=a"
        "O!w+J$6ezSX1=w)rjI9+|#N0)^@L8gb_L^jo)HA>6I0ioTeSXNF7&n=4f*M#S%_|1U||I&Zye@%F{%S5IA?RdK)w123ukv>wnc41*W&u"
        "<1cZ7a#W;(Il4Huz-<339FcJ`(&~xFUEacy`n4wcLI|{)(iZV?Ws#CsF?;q5TY0#w#i2I~#aC2wulmH2?$twXSN@G5O@<=Xh!Y&U4~x&"
        "hJL~mzaE7%8$Pjy4NtEh3RfE{2vStN%*Hw!doSLn#qHNzr*mfYtI7kH-_iIEuUq2_8IOtJj3}Vo~@)LAJW}%zR&dZ5qG}7!th!NpJI4e"
        ";=kkIRpoKH2K(5!CpC8-o@YFU<cCrmjSX?RM`S5czRE-13x8+>{uLtRs&L>w0P0Zxd8r=!5lZ-yG>-|BzbeiDhcz|-uNe=|E6(#*hHoS"
        "8I?&Jf&lC6jf8e422~gwDddUCS1OJT&{)7jA)<ga;9{3(+Z?MW;H@@z{{{tr9TIH@I^&axX1COxlXHj6YfX{m1Jl=G^G}3snIPm!yknq"
        "b44@&ql&kG5^D)EP;I0q#Bn#9lXg2d19e@gtk4iqJRu|A0W9AA<6%XN-a{Pvi*&Jp*xy#Dci0SV{&1|^)YX%9<ykHpXG=ynO`aq5%CE!"
        "SNM=kiZU`f&N(63*oZBt6qYJrr>+ANTOjn1_ERJ^W*P_-8@p=lLx2vm-C_v*WVN&yM>NKVMH)B%H4&eCg#lUq=khtxtJfl5oxwlyJ^dt"
        "GV^(JPi`gd0Hf#^R#MidpS=?!Z}a7gma!g!QN(Ze<<iL;=2WXM0`Nt7x9ByW!{AZJfo@S`!6*0e4o+O^Zksbp6};{aUU1!r$>A*XzDz<"
        "sHyX0-otMT9&umt$e+AN{#^F(|FTCu{K+G)u6X3tRgXAc^T?BeN50+k$hTV_`Ou=P^Pxvq*O~3Qy3X|J>N*qF)pce-SFc|YUA=xC(ADe"
        "LL0!Fmjp^$3*VfhR?@?X7{+`s;>+g)<x6h0F83At>@QVWegn-WrdeRW_{qKUHr-&~JdWv{n&{M<<!nj`$#w`l?7X^GpSJwf<P}c#Up{@"
        "f#LtO`Ijmo$k!nk1p?-c8v;ns)m8wMnOIKEHPhvN}RACCXbP_K70hPp1DG1TkeYlgbcWDWH^I&Y}g%~?ZTPc9hhd3VuJue0-px^65O>U"
        "o+s)bn)NQ16$n80vk|hlY9|b<I%kiwcH%A9d4E?~6V))cdHSq24dmR#o!qOJaTVzz+!cR&jk4@NO~g9ytG7!65Fh2Vn{4b{&-PdFeX@$"
        "CrfndJ*UE19=H=k@oo<=kJR^+&F(<?2vF?PxeVT|4xvWaQ?j^E8+aTEid8x{R~pExHV*^EIT?pJTft2A7jX20hzSpNh>;JMr}K34p}KX"
        "nK%aRM=O%C$tjqO+A%XWl}uU_wpj+otmyNW^VprV#-iP}b<~EG9ZlM9Ryq(IiQ*5c0@38*sd3~<LE^}SIhjnvtW*lR58+Q@e3Fi6PE3u"
        "PC4v-~=IHoj%$%G`#Z~yBXfiosB>|fb;pMoMOu+EeM9dyZOqBVUGAP5l9Ue;@ijIj5<Iz#ew5{kkq>iOx(XlZuI-E$3nhtOT?_ewu8-?"
        "zPgl%<y`#aBUMRW1lWiA@&psA7L)`pfLbbTz2?RKSY)H-Iy@J@jEV?3I&n0KwXIh>4+TYwf#jtl`c{CR5#9Xny;rQ`s-X&)-HP)#PS*v"
        "Rlmtc)ENux^aD9X*8CW8=;>nHY-NQRqW_Wa98Q;Qw=M(dhT0jmN@gO4ps*#_tB=kziQ0g!B17FMV>7zgRuXu&{*hW1l>?v8$iGBKf56O"
        "BWcn!G>!0`?0JSKc3V|`fDEjWqsx6?-Nk|-)dB={VmJBOVs20SpS05LH_=}Ow|5Mx47T;{p>5B?7vP;_0<>m(d?68+^FciS<(MLEk)&U"
    ),
}
