"""Weights of `gradual.score`, written by `benchmarks/shots.py --fit`."""

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
    r"(!WJO;Ar%|#sz%6O>i4Ok{1|1I;&v3fzR1K*WOD&DNj#7_2Yg&u+URLq4)^D*|qGwppq"
    r"v)p1~qNgZ?tSrkm3~4ibq#Z<u61P``mcN0wheA*>9)J!=BK>{2B^B4rpql2s|ZtvJd)u"
    r"U4EuCE8>^_*R2Ic3Wsb650d5D}fWfs&6Jg(D4>Ops-rJp6bp%cQmm;zcyw+%f5s^7b<f"
    r"=UJ&QLsj36Mdub;>Ho6r*!L@e0d)CZ80Q1Q}bGKzbPYH)Vf+vPQG(LhqHuGpdcz35in+"
    r"MlFrt_~p_e7{Zny;Zi6-f+05d1Pf(?ftif**@N30ZwVWblVS@HDzVcH*@@xks!%MR>kI"
    r"|5OM-QeT!o*N<*LFCvRSIC6qNQG#1PJ-L=YWp1}VKZ?6PQZmLsiTeFNfs;-@ITm0)H<X"
    r"D#R8NIJFULARrmJ#4j_tTUII_Dwr$E&}KD^>TEe;qziEm6l>V1Ge;DUuedW<1II~-O&Q"
    r"<A+tx~IfG^!MvP<EG0$uF#l2kWw<e>l83QfWl5biCL^Zwv{M8`|Hy_PhU8`UMk%_uiNo"
    r"HzE6?89+0R$k;#<2OT;j_^vsDqOb-Bn1AUynqi_tr9{qtnhI!{b6z=oAVL{S96-@#@9!"
    r"5gFRpiXP$(bX+IxogPBW0ewsK%o`%gNF{C@4@qo=gCM3F#WX3PI$)2#~KnJJ<xjcDy^j"
    r"4(iZ8EL(>@<x~H@GUtjtrM)`79v<vH9k>oYD(zvu0AM#h_}d=7H#7i%jq;Yh_@kjdS38"
    r"P5pal;+1Sa-9&0CZ`CBas{-!&IL|AP5EoER`Z`S|(0<mW*>jqlgJ3>YoGYx<o%pNs*3_"
    r"GXE`r9o3Yb}*g3STNN+o?v)Aa(eDMM5~p)8pV^nt{ZQ@mh#2EH5z?Bm~XYcDzGWM31?k"
    r"ChH}?D(MSP+a1dy|-^-l6-Yf(^^dEA*&GPEKqr6zYpCE@k48I+|Uk|^&W$rOQ#9_m{C$"
    r"f~jBKrhA05S}|QP+$<WsCrTi7MB=9IOyNg&qsP2J=5Y4%ELsIUGDa9MpI|>b1o^&qFgl"
    r"Fvf1a|F%!P#={1_Lth5G!F7DSZ)6`o@N@uxLKBTX++|+9=Oej27GkkI3m82<;-Z~BI@k"
    r"R?toz=*&U1!7u7xAMgdDy+>2ngj{wIyS1`dck^ou{fj)4FGoc!UwBso&ORnUJv2&g2!n"
    r"m~3wTTfTM^fCuNXzSR%lhJrSPo+IRW)M5R;{U+B=38pLD?22<OUIVJ=QaR<F9WnYl3Om"
    r"mU-){xzf|u%mRP&JrcQ9aKk~RfQFWR=?TcYP`iOYGNyv3ROV~ra@!9RYn`oFmR2EM^=X"
    r"U`B?VTk(?wWNy_*~vTD&>(r72JY8mPi)9fFH{~cUgkIVKc@(H7vY76vNKFG^Ia2A9<#{"
    r"{*1r9fghE=(mDZv0H%q)*1mkciTqnWc6f(A8{K-opWBeWxHz-E!_O!_C?}7;c?k)=0Tl"
    r"v28@`FWBX=M^6c-;q;^xaeoZ0~Zqqoz(%y7%SE-wr}PH2q2A}qVTP68pm!8sbe>en+p<"
    r"4s0B_9PiTcQb@N4dE-ksuTde*XTmNEY%LaCmR6(m;%YYDzJ_|Q|GWg%+;1WQb>+IH~sB"
    r"B)>*Q=DG6IX3}nGR%et>V?p~<A&`k$E<b}AslyIZI*0Q2LG_U}Gz_^gTz4AxBc!VRpXk"
    r"q|94|jt+&`lCOTZ96>kMk?K9|?KBSs1Op{Y0@n_C(sfkA*P3M^z?1z6vQmxI6*?k9|MB"
    r"3t6&0p~Td^>EWoooDo?*a|gCPC$#IkrWX=Dle;Cq-p)uqZ#|*CoNzq7JSSy6!J5N8i@h"
    r"*DZkYf8%xvqvC@q4%alvxFS(fy>^=17&@d5%qdc7JxB<s1p0H_^4LoZIg%h6Q4gayXFT"
    r"AOq|CU_LSQd{yq`#J%D`?u{rI30>T4uK3mty+-1b%M!03@(m7nUn@TqMM+-U@PlBvW~*"
    r"MBCYYg4b#XyH@B_5nQVZ*)>MMNC+z_M+bF-jc5bM=1qAy(uh<H{rY}xD!SblSVb;4nMf"
    r"lae_QKpfuJxim+jCmJ;?d5#jj!#zKMiHRBKW4hP7eS8G16MSiJB_Dv12;D_<amL_{NSr"
    r"2?#R1MN>mQLbZuLMc;ot#_svNzCVh+WOXh+2?680J7lA~=JOywNMr$k5uaZ^(GZ-x{ET"
    r"cq)e{;$ON*R5-?Z_*=IXmWOu4VUcz&`z0Jls&p9MU<%XH>E?e`WussTm5U{xEv`Dp+Ey"
    r"z3vnH5eB@UH?|TqG`1~Ua8YO;!}OTiTcpKl96LRjKZ_Nvaz_l7<?)|Inx8bY1iq!7iQl"
    r"+s`)=Y+Aslt+M?9G(ED#btVQKM!87;11=CYLIL7HaFfVVu<7y{AEW)Tha&bOB=3+iQA3"
    r"9RLDeI=a{Snzbe$=zPjyC{+MA{y`_qn}2#CWehk-RTHlg-FJGcVyihI}GE4xX_*TG~E7"
    r"M*jIejSF7BA7gVp^!&g*bFrMhE6@5pmD>S;6OcnasL3rp*<lR6&DhL7{&1B%Sa3!@LYK"
    r"n6atpJ&-@*sK%+m+I2dR!eNbnav5jd1R_PJO-Dwn=J^XLJ9Uy5<M9*z<|yNfTrl)|IEL"
    r"Sx82Xguh>H`cs7c;#0+5#OM`xrhork3rEq1Ahv>YAzVQUa?F)2naSjI79&epkBJZlTn$"
    r"za24ad{!5a+&h<Gysf2nyo!!trB$VI2cHdCGp+*Egy<;}Lpld8XtDK3wuMtB%`;@%BoH"
    r"_x3iJQGXdS;frgD}@V#GTnajo@WINf}{2zUl0}eBwC1rU(l@)&S(a-fa-Pby=D|h&4pL"
    r"RjL}kPdBZ;?T7&Yc}HZvWel`EeJSZa&ecP`{6@q+bhQD$<kBp?jbqBb-$9_fU(eS*@5Z"
    r"^l+BlIt3N(v7xvZeRU{Mjjwf+ErW9E82WsGCKEhafTIkZr`6BI{1co3aE<H?skvqXwMG"
    r"=RE3{>GI)3p6afu~KtBf}+7aD2V30ZHZJr*nR*2MvXf@1rr~<*_rJ<Y<1v0Qs=O}`XsZ"
    r"yjYMcYQ2{`{7DeMeLXGV{-Zr5<E2afKWms!Gt-)zN-vM^M&Mg6emEf7aTCm|g^GA8T)R"
    r"F}~ZsYqr)2bl9yi&!!4n%OiTiuX8j8x~n1>ey=d*&j&+~!-p0j)1S<|=Z&0cHV!tIDIi"
    r"#s<+o*-=YAd-4K3lB<V49F(WN{uQsjP!uXYTbg=4^>0!>=RAzO-CT~ot-p)C9_hlp0r5"
    r">eEt>#<n9wvn2Db`6)$9d7Z%hEb37{uGXv7~qAUd2rf}UButr3(yd+snlFYpe(X!l{gK"
    r"ez%ua{^4iskco&Pe}j(F_JYt4J<@Hhgpxl<Lz!fv<KNeZaZVX`;3IXOz3yM8}>cFhjOj"
    r"H>3dQ>Z?4Qeru;}fF<dY{)}lDRAMOBv)43ZyG^IE`xDV^TSWzNAXw~*Uvle?k<Ik%;pV"
    r"7uWO|~pO4<By6i0Y0$n^D?6i6IrfY~O=DMAJyV_aXrR>AR=C1Upy02!<g)-R2=a7+;dT"
    r"kxCZ7-BFc3YQ}=Tb1SXBnG#YyRfl!G7wO`?>LWzH!SETrSb40yy>S2ldK4)>%A4Q4kN4"
    r"F+gvEM2K*Mc5RyiO&psNAC@8yWTfW0?9B)opUGPIh#G3&lQ+`hED2qt$uRDgTFCk_Dsh"
    r"@76j94tvbYK@aV-e^g_gcFcHoG%u?R1-kHj;I5_bcfu$;1Zrbi|#bOs7F9P3L+Oi73p="
    r"pqhH;=3IG5AJ|7)Er#vD)2H{RVzig7d8(!NzBBu*J8*~Cb;dlN%ZOsZk3P^oEyd_}1I~"
    r"=1vRkYnbU!B{&U?NgKuu=d3N&=-msM$9@5B}mkyh`mpA43Da)}8XcU1ev!RigR6iq!x<"
    r"7q)*s`A~{IqvVx6$`A)WSpz0MG&TaipbP<kfm#5+!_?3|{cnrDrSm<$>`VK-<)=}-Im@"
    r"O!NU58?wSh}MzKr@kMXicFSt%Soty4NZ#EdUKkY7f=PcZ<1BrkfsPOGs#V|JLn{%Yqv+"
    r"g71I-v5<7RS1#0x?%&rW<Lx*Q(?xs(BLq=`IrB^vwDa==E%dnALR<YzsUfAnQ*>7;t2*"
    r"n%Ls@+E&J)cN?vn6?T$e{?kr9}t<M@hobo|GJ@}VD$BVbWd(r?tKG9OXaxJgFufOj-f%"
    r"*V|Q3C`%U*}RjwX=i1&HB7PaUE^FhFYw?t6gNhb*@&vz`hH=P&CKA-x2&h9r8`R@mp-Y"
    r"maYRn3GOpJd1?RvU^%@!jF+LlrYg(6QJ*8dz#LIOC2Xa=3DrG6UXGx=L*SJ@ac|tdDZ_"
    r"<6L$$BH>4;=L#>IR-Hg(m$l}7;p3C?W3V%Gb<p_EWR#a55KCFHoi5*b>*4YM9U4UX`=e"
    r"z-WhndlEc8QZ?T+JS(+dx0Z9NVFZk_@<}65*7h~v3~=;Y=H#6Tduc048ff}3N=%`&}T9"
    r"|@hsQA!8P-}>FG_qL>8sJ7l%Q+o29!xtUVvS1T70bLr22B=?(yZ_Z*SFD&XrrEf9o0X3"
    r">|uB(7UN$7LA5f%lfa^W2KQv`r?ym8$SPTQ5|;!Y9K%=9t_)v&fFVI`hQ7UuFP+o1`Q@"
    r"yg<!7#P_GYl=t4e5b^`OxbOEpg2m0fH^C4;d=5oEJ-dfKKkbRWhN8+o>&9NaLOp7}v*r"
    r"RnE|&m+2<yzekfszq;;xW9Lk+~e0RE0YzL?xUt(wd|;6}SY>p<$gBd7?zmCUR@&A=W%M"
    r"m;dT69Dx+()fcvbb6$|Yp6Ird}5iuNtc_y)y{@L!byj}n(4;B>P?`(pPjeA=AgE}=?S;"
    r"LYP5krYpSNdhX5!)=&5x-ZjA@PHH`}_TByCh$m*>="
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
