"""Weights of `transitions.score`, written by `benchmarks/shots.py --fit`."""

import base64
import functools

import numpy as np

_SHAPES = {
    "mean": (50,),
    "scale": (50,),
    "in": (50, 16),
    "in_bias": (16,),
    "out": (16,),
    "out_bias": (1,),
}
# Little-endian float32 in base 85, in the order above.
_TEXT = (
    r"4BSUR(+l;!cQJ{*@y;MWynG)&tbb&@yxiD6;eAp-4DDDyLXmzy+V53Bp@s>+32gGcr5-"
    r"Ck<_jo49d<gr;-}F*2osDzaY1fBZ190Ukb+@A#Q6=sBa#QcL5C<mZham<J9#R+JuJySL"
    r"*Sr50K{)UTmpqZf;(zJ{AmQgH4huUQPU_tAVVBKtI1frlef%17NNF41aWdd54?mw@%(f"
    r"^>80hqK1&O}xHBq0UOE~-)beh;jP=Ss%+Ak11+;NLfE0&6Ghv56=8A$p4!3DP+-1T)Po"
    r"woe2q3UN>g=dK<T<iHPgfm46(IvZi#~xr4qS^r-lBa!-7TL#6I0bcwd=P&1UIWbzpBhY"
    r"b{QH#SbUK`=>2d%BHW8V)|P@ly2gJ$15va;G8DExc@VljAG6v(T`LhlKu#e*l8|CQ1?P"
    r"%C>a&GEy*F1sfwGxDYv8y(il@9jPc-j9G`R;r0?Zgc?sHB*Do%nwikXH#@JmNOd;f?(^"
    r"wGXPbGgMnjSd1qv)=hXIXjv^s+&E&?1~XTu|Jc(uFoJp@6I?r*;%YUopX-9WiM$yH=)2"
    r"j?}-h*+?WwQB`ZTd($c6r)(fXTNkjmE{^?}C(vK{^Cms$yPgR&cj{=B2OyA=^A51$w{h"
    r"<oIHcqWPRk<d=qRpQ^fNqz*@wXm6;t07u%Z!0Od~*N*u?>R0#f`|mZ1%D~0o2kx;>txn"
    r"YujHwg1}}z%L5d@n;B-l$xXw(B4RPU#Qc1^j(76DXaJr&c_x0oo}2)Ha&`ti3-f9|Pyy"
    r"w<ni8<Q9y?S%U<KPfxW5O!&GYp=Ed_!-y@X6YLJ1wd)$?UNoU4Al3yCDYL#N|C)u{sj*"
    r"Vd@M!azkmxa^U>UlENx2cy@$i>GBh+BtH*<#-c4pLIk%l2@s|dTM|^l~(q>vzhxndary"
    r"w#Z;F(;@kj$@I{}#v~Z)oY`o__>C4PLZxYBp1NmIO(kX(z4>9Gv*zBRc1u!Q+>#qeqtY"
    r"cL?UkISRmqQS~g-OglNu&Y*DT*n+`D6Y)fbW36@%B)@ieG^~&hkY*C9Xlf@`{PPL-+SS"
    r"UaY6Rlo%7d{F0o#J+*y356=R=tdvAQ!FB)uY-d(J!AV}e(J|mXH9cRwUW%YT60$Ttrsi"
    r"|K=#u-r)6J+o@E?)A^<|B_WXJuzdNrB6pNm*L6LECDy%qz29KI#KD&dB`T$xNhgF%%$="
    r"A^4WU|aycypXHBz5bZKqgwwx`kjkDMs_5=`^b2`BPiLu8*v}LJzST*22uoo`N?xW|JTh"
    r"uTLu(9I4qF8fi9UnmD(6Sv(y<sMhtAeJU^>GJ_m`u^?80i%A^s#v(VW*ymgO0ID0@pXA"
    r"T2^tZHCAt8%5gQNZRtOZ{oSY#J0l`5|S!s=2{F35DFgR(6oR@Xmlfcxw~BQkVihu5T4S"
    r"j~8~m&jygbOv3<xRFGu8d@3-$R{-NZSyj3{V>I8sCMtKnZ1`Kg&3-OCl}4jI&gYlCOlz"
    r"n<Ku9RPo}=47vyJUOKky5_N0<Qs4|~PF3k9RTpEnIZ9l%UJu3;`dW}zxQexXRcO>Uz*|"
    r"KN8%ccDE#Jcp~jb(s9UbSM74Szf2U;!{4pOK1Q9FwA1UcLIJsO5b}vF~9!3m9v&Ux7I&"
    r"C3Xxttkt|3)Q>%zR7_r+vr_Iv7KXdIp?oENc$05PK3>K0;;HUtASfQl7eba@!u_^JrQ-"
    r"}gQL~Inkcyo+Bb|>V$gM|G(i6J#Q)vK4j@v4nImI+n8@R!&<MU5Oj&n{IySi}K<TP2mg"
    r"*HjL@1-+NO1ek8Ux7FP~3ZDl)*($ibzHJsh3K=E84I4&2qX&{aKJUi8Kf*RWvZYZyb)&"
    r"~Vm>2<oKrEEL<s?GB-F_FpQAD=Amn)?{_IbEI`qZ|*B>B0%d8Vj7<=wiyq$UtOUey7<C"
    r"S{1cQ>Z1rpVgl}j0XdN(iIXvEy9MqN`%rrBP8m*Ac-eG-OZgo=ishA79yX#Cp>OGC2yf"
    r"UsF`2BSkw<bOF=5WcI2bJTVztc44?pj*j;zMU(#T`-4V+^%)vjr%i63ygYBQb-&|n4Oo"
    r"FPu^Q$Gi@2<T*^TTJp2s4g6j~$`COzMWdwk@W<LAwC}Ba8<=Gb|B4iIE?@;9(0r4L2UX"
    r"2?CHl0(w3^XAP4*JsgQXlGNF~4(YPI!6h<2#j|8R#ICBl^ZznGyPg7oMvDwS<cxT{gD0"
    r"#$wuRunk#^=jes;UQv#VJ?Y1DPTFzWn09O6Jel5hIGc9JN)!pgiow%j|unC7HCV!r@@*"
    r"=gK7CyN8V1JFIb7!8X&Og&7#3iPnP5xOY94DBsEHs6!IfsQ*pqba&QSy95i2TnOXheFL"
    r"h4YH;^ilqR6rU1jcbHrG@7|>Kc5BBywuMEMws86)Las{@&;NJ^B0p3GCq&uBGr{3VaKD"
    r"U0o)O7s57D_X{xw#EKjer4wdm_p`w;A3$tp6cCJtQl>$;PcdL|&0Tr?0|2aon&ye>Fiq"
    r")S47O#$TwuT7H{7SMnr2P)fwUcpu?Cs9peoYQU4d76{h6YeKNT!112Fa17JF!)L5Ln;@"
    r"*dduTU3S5H~KmMSp61zejx7o9LZGo!#hyMvlOwLWS+ScC(B=BUfQX4I%X@q!P&Y%Lr;s"
    r"j9|4_g=+18p)o$ygo)glkwBOF@zI7r=(pyH}Vg@8dZk8)LyH+;SU5p=)nPi6Mx{oQ3ig"
    r"#;Qq$GY$??}S(eJZ=1ovObX1YOw?0a~I{mP{MdyROPvWq>g`<u>A=EOy*BCauzkoQt5z"
    r"_zw5iJovemNJuN6?2pN@kzED|4?tZ`p`Gu(D&m)<{0SBi4bt7BUUK&j`}Jd=AP!k$I>+"
    r"Zvarf2Nk)##f}4jkwt<%qye@)x-->2$^mV?nkn%<5OI*cHX<j!LD-hQmWUa?uhQ2(3P8"
    r"!e3q5^4$ncW9`5nW)rV{YJc*y|(iQPj!z3dCS2e=YG>lu8#R0-KVf+Z9_Kr@d%`50(DX"
    r"P87jL$NeI7LWD4?upVpko!WsXfh1GG2+KQK~Vt!;3I`S3ypz06DxH-4Q`0Ot1E*(*BHy"
    r"b7#p@dZ%gF92Zj$mo2%nKwC<ceOL$B@usXFp4ONdm!pnQUEl~gfYygG60GByEr`Hj_*C"
    r"d*~BtpwOtvI&62a>G5YUgpjwO&5GP%g4ONaUP8zCWbB=+=6@M^5`ak6`M)+Oq+GPMt13"
    r"3StvJgyK}ajy#w?*;;cu@wO{I{(ca@g1N#zifB$gdG3oo3}uVG_(&YS%LG}z=xrLls#Q"
    r"@wb|C<OkuugjJ=@T|e{;b;9qP=!ZqzS7uwj=zl+=GdscHf~@iuEd&k|riRdznV&*I#?e"
    r"a4_YMKEZ;BpZM}eTV=6|Mx>alUkuY0~u7l#)C1wZ*{@Fv#T7wPKlAeyT-)5a+LMHYKsQ"
    r"His`#OGH!xCz$TqO(e5EWd|Xk!6z>3lBZ2a~o4g-BR+X;4|6l|@GPeXjN9%MxW|Ol%TJ"
    r"mT<AQ;*`go_QnWxkj`h2VES(_ZVlGh4ViP}f1efmZ;4NfQ&ls-5({@D7YVrbq=ow=!2f"
    r"`SPQ_v>Deuocoi$C~;N3DM!aWBaSG(Bs+AzKJfv*VjzFM3EyqH5qkjuYBvNwN$Zln0w|"
    r"9@I^=}C=gYi4Hk5-stD8i=G+d#+>$Mj>QR1P#+UE?uwc)!yM!Y{hB#yB>xG}cA5n%&>7"
    r"aY31tb!vxB9O#BRF4Y16sDp+%uV0ERu7TB;yS#(S7&9um2+i2mEk+S6wjkRrq+2qm-d3"
    r"bcVE-K+Kd1I3PFNC#;mA4MD+4Lq@(*iq$sLAHK}4fDATk);6+3}(htTysG&+e6#|~V-p"
    r"au}AOgibfL8s!f43n&koN$9b}4y2O>mMuH6$fIDlIL(5%CN@kB0%jIS7Himx>|3S1t{`"
    r"s^D-wj&J8ZEh%ff9p`60bv1TAw`2sr4T1oG@a)vSm6E_dGJjsa*=?LXzmRr5`2ml;LF%"
    r"(S;O(Zq=spd;UZ)#AR*5vdat4t;j_ou(Fj~z$foRLV^e+GaBSLRJ_=V#>wnfaoj0WPn$"
    r"d8FWs2zts3&?}MbYLmIpx_6-G?7<6NIfpTw@+U_K6tb~W~67n7cGT5^<w}4*sk|J8E>m"
    r"TNPtH_ogDSPz+HkrM!^L?;z0{PZz)wiG_0XMk3ge8L-@bHhIku3;;zNMVrH+uXx?r<PX"
    r"hq}gCp5K5Z;kK2E;_Z5<YspY}+}$WD<hD;J8@6hGyu#%McmAIu;1OBh2JIKY)uqdcSx+"
    r"4AXHw^y%w8d|Utkd&D8V=>R3ZR#Mu&zm~VXP~$2;^QYfE>medP!^42S%^=S{89bW4n%l"
    r"8HIx7vmx%UG;09ac-eLt?gej5S+syfcT<gU=ZG#?T_cwRuh>9o<i`EZQCs&*Pb*|?!S^"
    r"y7lQk)HuSw9WCpL?kJ{lh>0z!v%o8fs&oR94-L>3qGJeOp%Vh#vz|R`hA(bak)4?!!gf"
    r"1MP#(TxtfT+fISVqdfXtsR4%-|@qf-f<z8?;`7ZQ5Uez|f#mfMIm<uVsDKz#zvK)>+DK"
    r"Psz3Y!N$>5~G#glYu8)`%s(9S5zxhjmH43XlN4E~6$t-B^0PP;g7WZJY<bkktWzVc3p6"
    r"Jr*B5e&&Kb^&Kug7*|ieV`Y&&Zmn}Y?+1lG*?b*8(rpSpkzH55Q}P-<PKO7+7A-Ko4Zo"
    r";9z8e4l=3bb-DUD7(SBgx%H{!6o&U^?zy^8BU1m?azq}9|v`8L-+toy6J>Tk0?I2iIis"
    r"&gAX&sbqTa8ZdrBmSeluav949iXefRampXK7n>Wdb*Uqe%#N$Aezd*gm=Ne3&gv>9%|3"
    r"OCDfHa%<`qb9>14AJj{$gYW4`gUfTeGK}F5KHFM!U"
)


@functools.cache
def load():
    """The weights by name, float32."""
    flat = np.frombuffer(base64.b85decode(_TEXT), "<f4")
    weights, start = {}, 0
    for name, shape in _SHAPES.items():
        stop = start + int(np.prod(shape))
        weights[name] = flat[start:stop].reshape(shape)
        start = stop
    return weights
