"""Domains and URLs: with a scheme any name of letters; without one, names under the suffixes listed here; never part of an address."""

from collections.abc import Iterator

from infra.detect.pattern import Pattern
from schemas.findings import Finding, Kind

_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,62})"
_REST = r"(?::[0-9]{1,5})?(?:[/?#][^\s<>\"\x1f]*)?"
_WITH_SCHEME = Pattern(
    rf"\b(?:https?|ftps?|wss?)://(?:[^\s/@\x1f]{{1,64}}@)?(?:{_LABEL}\.){{1,8}}(?:xn--[a-z0-9-]{{2,59}}|[a-z]{{2,24}})\b{_REST}",
    any_case=True,
)
_BARE = Pattern(rf"\b(?:{_LABEL}\.){{1,8}}(?:xn--[a-z0-9-]{{2,59}}|[a-z]{{2,24}})\b{_REST}", any_case=True)
_TRAILING = b".,;:!?'\")]}>"

# Suffixes under which a name without a scheme is taken for one: the generic ones in wide use, and every country's.
_GENERIC = """
com net org edu gov mil int info biz name pro aero coop museum jobs mobi travel asia cat tel post arpa app dev io ai
cloud online site store shop blog tech xyz club top website space live news media agency digital email network
solutions services systems software company global group world today life design studio work works academy finance
bank insurance health clinic hospital care dental pharmacy legal law consulting capital ventures wiki press video
games icu vip gmbh ltd llc inc eu berlin london paris tokyo nyc page link click help support chat social codes tools
community
"""
_COUNTRIES = """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf
cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gb gd ge gf
gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km
kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz
na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg
sh si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc
ve vg vi vn vu wf ws ye yt za zm zw
"""
# Words and file endings: a name under them counts with `www.`, a path, or three labels only.
_AMBIGUOUS = """
ac ad ai am an as at be by cc cd co cv dm do fm id im in io is it js la ma md me mo mr ms mt my na ne no nu pa pl pm
pr ps py re rs sc sh so st su tf to ts tv us vi ws name post cat int pro app page link work works life today world
help support live news design group care health law press video games tools email click media social top space
"""

_SUFFIXES = frozenset(f"{_GENERIC} {_COUNTRIES}".split())
_CLEAR = _SUFFIXES - frozenset(_AMBIGUOUS.split())


def find(text: bytes) -> Iterator[Finding]:
    """Every name, with its scheme, port and path."""
    if b"." not in text:
        return
    if b"://" in text:
        for start, end in _WITH_SCHEME.spans(text):
            yield Finding(Kind.DOMAIN, start, start + len(text[start:end].rstrip(_TRAILING)), "url")
    for start, end in _BARE.spans(text):
        stop = start + len(text[start:end].rstrip(_TRAILING))
        around = text[start - 1 : start] + text[stop : stop + 1]
        if b"@" not in around and b"/" not in around[:1] and _named(text[start:stop]):
            yield Finding(Kind.DOMAIN, start, stop, "domain", 0.8)


def _named(part: bytes) -> bool:
    """Is it a name somebody may own, and not a sentence's end without a space behind it, a file or a method?"""
    host, _, path = part.decode().partition("/")
    labels = host.partition(":")[0].partition("?")[0].partition("#")[0].split(".")
    suffix, world_wide = labels[-1].lower(), labels[0].lower() == "www"
    shortest = ["www", "name", "suffix"] if world_wide else ["name", "suffix"]
    if len(labels) < len(shortest) or not (labels[-1].islower() or host.isupper()):
        return False
    if path or world_wide or len(labels) > len(shortest):
        return suffix in _SUFFIXES or suffix.startswith("xn--")
    return suffix in _CLEAR or suffix.startswith("xn--")
