"""The word lists of the vetoes: folded word -> what it stands for."""

from collections.abc import Mapping


def _listed(text: str) -> list[str]:
    return text.split()


def _same(groups: Mapping[str, str]) -> dict[str, str]:
    """Every word of a group stands for the group's name."""
    return {word: name for name, listed in groups.items() for word in (name, *listed.split())}


_CARDINALS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty"
)
_ORDINALS = _listed("first second third fourth fifth sixth seventh eighth ninth tenth")
_KARDINAL = _listed("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf")
NUMBERS: dict[str, str] = (
    {word: str(value) for value, word in enumerate(_CARDINALS)}
    | {word: f"{value}." for value, word in enumerate(_ORDINALS, 1)}
    | {word: str(value) for value, word in enumerate(_KARDINAL)}
    | {
        word: str(value)
        for value, word in zip(
            range(30, 100, 10), _listed("thirty forty fifty sixty seventy eighty ninety"), strict=True
        )
    }
    | _same({"100": "hundred hundert", "1000": "thousand tausend", "1000000": "million millions millionen"})
    | _same({"1000000000": "billion billions milliarde milliarden", "12": "dozen dutzend", "half": "halb halbe"})
    | _same({"twice": "double doppelt zweimal", "once": "einmal", "quarter": "viertel", "triple": "dreifach"})
)

UNITS: dict[str, str] = _same(
    {
        "m": "metre metres meter meters",
        "km": "kilometre kilometres kilometer kilometers kms",
        "cm": "centimetre centimetres centimeter centimeters zentimeter",
        "mm": "millimetre millimetres millimeter millimeters",
        "mi": "mile miles meile meilen mph",
        "ft": "foot feet fuß",
        "inch": "inches zoll",
        "yd": "yard yards",
        "kg": "kilogram kilograms kilo kilos kilogramm",
        "g": "gram grams gramm",
        "mg": "milligram milligrams milligramm",
        "lb": "lbs pound pounds pfund",
        "oz": "ounce ounces unze unzen",
        "ton": "tons tonne tonnes tonnen",
        "l": "litre litres liter liters",
        "ml": "millilitre millilitres milliliter milliliters",
        "gal": "gallon gallons gallone gallonen",
        "second": "seconds sec secs sekunde sekunden",
        "minute": "minutes min mins minuten",
        "hour": "hours hr hrs stunde stunden",
        "day": "days tag tage tagen",
        "week": "weeks woche wochen",
        "month": "months monat monate monaten",
        "year": "years jahr jahre jahren",
        "celsius": "centigrade",
        "fahrenheit": "",
        "kelvin": "",
        "degree": "degrees grad °",
        "percent": "% prozent per-cent",
        "usd": "$ dollar dollars",
        "eur": "€ euro euros",
        "gbp": "£ sterling",
        "jpy": "¥ yen",
        "chf": "francs franken",
        "cent": "cents",
        "kb": "kilobyte kilobytes",
        "mb": "megabyte megabytes",
        "gb": "gigabyte gigabytes",
        "tb": "terabyte terabytes",
        "kwh": "",
        "watt": "watts",
        "volt": "volts",
        "kcal": "calorie calories kalorien",
    }
)
for _short in ("m", "g", "l", "mi", "min", "sec"):  # too short to be a unit without a number
    UNITS.pop(_short, None)

SHORT_UNITS: dict[str, str] = {
    "m": "m", "g": "g", "l": "l", "L": "l", "h": "hour", "s": "second", "d": "day", "C": "celsius", "F": "fahrenheit",
    "K": "kelvin", "W": "watt", "V": "volt", "A": "ampere", "in": "inch", "mi": "mi", "min": "minute", "sec": "second",
    "k": "1000", "M": "1000000", "t": "ton", "p": "percent", "pt": "point", "px": "pixel", "ms": "millisecond",
}  # fmt: skip

DATES: dict[str, str] = _same(
    {
        "january": "jan januar", "february": "feb februar", "march": "märz", "april": "apr", "may": "mai",
        "june": "jun juni", "july": "jul juli", "august": "aug", "september": "sep sept", "october": "oct oktober okt",
        "november": "nov", "december": "dec dezember dez",
        "monday": "mon montag mondays", "tuesday": "tue dienstag tuesdays", "wednesday": "wed mittwoch wednesdays",
        "thursday": "thu donnerstag thursdays", "friday": "fri freitag fridays", "saturday": "sat samstag saturdays",
        "sunday": "sun sonntag sundays", "weekend": "weekends wochenende",
        "today": "heute", "tomorrow": "morgen", "yesterday": "gestern", "tonight": "", "now": "jetzt currently aktuell",
        "noon": "midday mittag mittags", "midnight": "mitternacht", "morning": "morgens vormittag",
        "afternoon": "nachmittag", "evening": "abend abends", "night": "nacht nachts",
        "am": "a.m", "pm": "p.m", "bc": "bce", "ad": "ce", "spring": "frühling frühjahr", "summer": "sommer",
        "autumn": "fall herbst", "winter": "", "christmas": "weihnachten", "easter": "ostern",
        "next": "nächste nächsten nächster nächstes", "last": "letzte letzten letzter letztes",
        "previous": "vorige vorigen", "upcoming": "", "ago": "", "daily": "täglich", "weekly": "wöchentlich",
        "monthly": "monatlich", "yearly": "annual annually jährlich", "before": "vor vorher bevor",
        "after": "nach nachher nachdem", "until": "till bis", "since": "seit", "during": "während",
        "already": "schon bereits", "still": "noch", "ever": "", "always": "immer",
    }
)  # fmt: skip

NEGATIONS: frozenset[str] = frozenset(
    _listed(
        "not no never none nobody nothing nowhere neither nor cannot without except excluding unless lack lacks lacking avoid "
        "hardly barely fail fails failed refuse stop instead "
        "nicht kein keine keinen keiner keines keinem nie niemals niemand nichts ohne außer weder statt "
        "pas jamais sans aucun aucune rien sin nunca ningún ninguno nada ninguna senza mai nessuno"
    )
)
PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "non-", "de", "mis", "anti", "anti-", "a")

COMPARATIVES: dict[str, str] = _same(
    {
        "more": "mehr", "less": "weniger fewer", "most": "meist meisten meiste", "least": "wenigsten fewest mindestens minimum min",
        "better": "besser", "best": "beste besten bester bestes", "worse": "schlechter", "worst": "schlechteste schlimmste",
        "greater": "größer", "bigger": "", "larger": "", "smaller": "kleiner", "lower": "niedriger", "higher": "höher",
        "longer": "länger", "shorter": "kürzer", "older": "älter", "younger": "jünger", "newer": "neuer", "faster": "schneller",
        "slower": "langsamer", "cheaper": "billiger günstiger", "dearer": "teurer", "earlier": "früher", "later": "später",
        "maximum": "max höchstens maximal", "over": "above über exceeding", "under": "below beneath unter",
        "up": "upwards hinauf", "down": "downwards hinunter", "increase": "increases increasing increased raise raises rise",
        "decrease": "decreases decreasing decreased reduce reduces fall senken reduzieren", "than": "als",
        "equal": "equals same gleich", "different": "differ differs verschieden", "too": "zu", "enough": "genug",
        "all": "every each alle jeder jede jedes", "some": "any einige manche", "only": "nur", "both": "beide",
        "between": "zwischen", "within": "innerhalb", "at": "", "first": "erste ersten erster erstes",
        "on": "enable enabled activate einschalten", "off": "disable disabled deactivate ausschalten",
        "in": "", "out": "", "from": "von", "to": "", "with": "mit", "start": "begin open opening", "end": "finish close closing",
        "buy": "kaufen", "sell": "verkaufen", "add": "", "remove": "delete", "left": "links", "right": "rechts",
        "north": "norden", "south": "süden", "east": "osten", "west": "westen", "inside": "", "outside": "",
        "import": "", "export": "", "upload": "", "download": "", "encode": "encrypt", "decode": "decrypt",
        "pros": "advantages benefits vorteile", "cons": "disadvantages drawbacks nachteile",
    }
)  # fmt: skip
for _common in ("in", "at", "to", "from", "with", "zu", "von", "mit"):  # said too freely to mean a bound by themselves
    COMPARATIVES.pop(_common, None)
NO_SUPERLATIVES: frozenset[str] = frozenset(
    _listed(
        "test request interest rest nest guest quest forest honest invest suggest digest harvest contest protest west arrest "
        "manifest modest erste fest gast post ist"
    )
)

QUESTIONS: dict[str, str] = _same(
    {
        "who": "whom wer wem wen", "whose": "wessen", "what": "which was welche welcher welches", "when": "wann",
        "where": "wo wohin woher", "why": "warum wieso weshalb", "how": "wie",
    }
)  # fmt: skip
MEASURED: frozenset[str] = frozenset(
    _listed(
        "many much long old often far tall high big large fast deep soon heavy viel viele lange alt oft weit hoch groß"
    )
)

TONGUES: dict[str, str] = _same(
    {
        "english": "englisch englische englischen", "german": "deutsch deutsche deutschen", "french": "französisch français",
        "spanish": "spanisch español", "italian": "italienisch italiano", "portuguese": "portugiesisch português",
        "dutch": "niederländisch", "polish": "polnisch", "russian": "russisch", "chinese": "chinesisch mandarin",
        "japanese": "japanisch", "korean": "koreanisch", "arabic": "arabisch", "turkish": "türkisch", "hindi": "",
        "latin": "latein", "greek": "griechisch", "swedish": "schwedisch", "danish": "dänisch", "czech": "tschechisch",
    }
)  # fmt: skip

CONTRACTED: dict[str, tuple[str, ...]] = {
    "can't": ("can", "not"), "won't": ("will", "not"), "shan't": ("shall", "not"), "ain't": ("is", "not"),
    "cannot": ("can", "not"), "i'm": ("I",), "let's": ("let",),
}  # fmt: skip

LANGUAGES: dict[str, frozenset[str]] = {
    name: frozenset(listed.split())
    for name, listed in {
        "en": "the of and to is are was were do does did how what which who when where why can could would should my your it "
        "this that for with on you me have has from an be i please tell",
        "de": "der die das und ist sind war wie was welche wer wann wo warum kann ich du sie wir ihr mein meine dein nicht ein "
        "eine einen mit für auf von zu den dem des es bitte mir mich im",
        "fr": "le la les et est sont comment quel quelle qui quand où pourquoi je tu il elle nous vous mon ma mes ton un une des "
        "de du dans pour avec sur pas ce cette puis",
        "es": "el la los las y es son cómo como qué que cuál quién cuándo dónde por para mi mis tu un una de del en con su se no "
        "puedo este esta",
        "it": "il lo la i gli le e è sono come che quale chi quando dove perché mio mia tuo un una di del della in con per su "
        "non posso questo questa",
        "pt": "o a os as e é são como que qual quem quando onde por para meu minha seu um uma de do da em com não posso este",
        "nl": "de het een en is zijn hoe wat welke wie wanneer waar waarom kan ik jij je mijn jouw van in met voor op niet dit dat",
    }.items()
}

SMALL: frozenset[str] = frozenset(
    _listed(
        "a an the of and or to is are was were be been do does did can could would should will shall may might must my your his her "
        "its our their it this that these those for with on in at by from as you me i we they he she him them us have has had "
        "please tell just so there here then also about into if but kindly thanks thank hello hi hey dear get got "
        "der die das und oder ist sind war waren ein eine einen einem einer kann können mein meine dein ich du er sie es wir ihr "
        "für mit auf von zu im in am an den dem des bitte mir mich dir dich sich so auch"
    )
)
OPENERS: frozenset[str] = frozenset(
    SMALL
    | frozenset(QUESTIONS)
    | NEGATIONS
    | frozenset(
        _listed(
            "explain describe give show list write find make help need want know say define compare translate summarize summarise "
            "name calculate compute convert create tell let am any some there yes ok okay use using generate provide suggest "
            "erkläre erklären nenne zeige schreibe gib sag erzähle beschreibe übersetze berechne hilf"
        )
    )
)
