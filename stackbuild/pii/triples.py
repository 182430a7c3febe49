"""The 800 triples of bytes that are most common in source code, in lower case, the commonest first.

Counted over 63 MB of Debian and PyPI source. The gate looks for a literal by the rarest triple in it: what is found does
not depend on this table, how fast it is found does.
"""

from __future__ import annotations

from typing import Final

_TRIPLES: Final = """
ion ing tio the str con ent ame ter ect tur for nam ret tri sel --- etu est ons urn ate elf rin ass err int ati def
ode sta typ tes res tor ype com end arg and ile ser exp get nte mat pro val nst pec par fil ith rep ver lf. ist che
rea age ort las met all ers not ted cla tat thi ext ite one ble equ lic por pti pac ess set der cti pos epo his men
ine orm sio rro ase unc use ror dat tru tem out ack mpl mpo pre ont opt .co fun imp lue lse alu /// tho lin pat des
rma ttp htt ins wit req nde tex act jec are sit ult non ste abl nce tch ace ind per omp rom mod app eta ali als fmt
att pen ues tin onf tra rat her sse ull xpe ert log ple lat que new cal art fro exc atc cod ath std ref ead eth ere
lis ore nfi .re 000 ens ize git ure nse loc ren era obj fin ock spe cha ram nod red ept fig ara mes nal pla rsi sin
ory bas rec cep ten ain ran cat enc fac ive ail rgs anc rue add pri tic ute gin ner ose uti les reg har xce hod emp
tre _co nts ubl fie ice ant ena ire put len ata cka run er. our cli osi var fal kag _in nti oun efi dir han ces esp
ool ove rti war ven doc ssi und ope del ato loa bje but tar ang aut wor tan ach tha ito .ge rib ord din ars es. key
thu ele hub eve spa iti d:: ed_ ide ost rou col els eme fer esc has rit man _re num ses ini cur inc ign nct ume cas
rse nul rce ild bli tte ast td: cor inf ade cto eat boo tif clu eld siz pub sed _st ttr :// cre own hat oad ual nil
tim dis scr cen iel nfo nit iss ema fix efa f._ sub uto ub. til aul ete ndi hem b.c fau ts. ger le_ ime om/ any omm
pts ppe ina hin er_ tai ibu can qui cte urc nin sou foo lud map _na rai ies url nge ern emo eri tps sho cop st_ you
low arr ave unt nta ear lea on_ dep den lle ps: et_ sch cri ude oca uil ole bui org led ncl gen ned ifi sig oid sti
mit rra son moc xpr pli lab uct _pa ica rem eco atu ict isi lem thr yte ... s:/ esu tiv ded voi uir ber sul ssu sor
hec eck rac .ap rge ray rig wri ule hen ise .se rte oke ct_ qua lid sto _ty rre ote hou lit igh .st ifa ori ng_ tal
dle ona fai se. e_t amp is- row mbe ree whe _fi sag ssa roj ene cou oje ngs ndl sen exa sts lec .to ink min dex lie
sup egi ruc ake rip oth on. ed. let lib 5.0 t:: try ges erf t_e sue ill odu mma llo se: nsi dic cmd ien plu imi mar
epr ne: ese gge gro te_ _va me: _me pon ::s ght oll ler tit tab oul xam ust uld dec hro tag jso nch ial clo uff gra
dou _de ken ege dif _ca ntr eci sec buf ng. rap bac bra tpu e_s bin fla nex lug utp arc wan ans oin ogg _ex rol arn
se_ ors edi .de ::m mpt ity rch ffe _si exe iva ugi inp tok chi umb ann _ar /gi rst dlo e:: tac ipt lon det ce_ ong
erm uni _se oup eam le. rsp es/ ic_ env eso .in ork //g /fm ett st. nes /cl gis upp ash vie ard spo ond ck. rie olo
api re_ iew ada npu hos xte dow spd gre dul hea riv pdl ari dit vat t_t urs ::f mer ria ota usi efe its t_s .ma whi
al_ rel sco it_ il. is_ nt_ nco ecu rfa opy sol rna sym ows nat lag pyt rgu t_c gum top bar _fo nor _li .00 _to ilt
hre inv hor eas byt mai e_c lim or_ _pr rni sha irs gex eak mt: bre nno lte fir lan nd_ tup re. cts li/ ome .ne cce
ida onl _ma rt_ vel erv rop oot ron flo urr .ex itl ric apa sea epa cut max uth :fo mak vis pas oos ils pe_ mov _di
wil to_ acc hil see ary ams ems mav exi ais .pa ags bol ets epe _eq
"""

COMMON: Final = {triple.encode(): 800 - place for place, triple in enumerate(_TRIPLES.split())}


def rarest(literal: bytes) -> int:
    """Where the rarest triple of a literal begins; the first of those that are not in the table."""
    places = range(len(literal) - 2)
    return min(places, key=lambda at: _commonness(literal[at : at + 3].lower()), default=0)


def _commonness(triple: bytes) -> int:
    """How common a triple is; blanks and quotes were not counted, for they are everywhere."""
    counted = triple.translate(None, b"._/:-").isalnum() or not triple.translate(None, b"._/:-")
    return COMMON.get(triple, 0) if counted else len(COMMON)
