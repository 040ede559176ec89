"""Penn Treebank tokenizer for captions that reproduces pycocoevalcap's `PTBTokenizer` without Java.

It reproduces pycocoevalcap 1.2: the tokenizer of Stanford CoreNLP 3.4.1 (`edu.stanford.nlp.process.PTBTokenizer
-preserveLines -lowerCase`) with one caption per line, followed by the removal of listed punctuation. The rules are
those of CoreNLP's lexer, rewritten for `re`: of all rules that match at a position, the longest match (including its
required right context) wins, and the first rule wins ties. Rules that differ only in tokens on the removal list are
omitted.

The tool reads all captions of a call as one file and looks past the end of a line. So a caption that ends in a single
letter and a period ("Serie B.") loses the period if the next caption starts with "The", "A", "It" etc., and the last
caption of a call, which no line end follows, can differ ("in the '90s" is the same, "in '90" is not).

Known differences:

* A carriage return, vertical tab, form feed, U+2028 or U+2029 inside a caption ends a line for the tool, and
  pycocoevalcap then gives every later caption its predecessor's tokens. Here they are white space. A tag whose quoted
  value continues into the next caption is not a tag here.
* Python does the lower-casing. A sigma before a hyphen, digit or "ª" can differ, as can capitals newer than Java's
  Unicode version.
* "Al.5" at the very end of a call (an abbreviation plus one character) keeps ".5" together in the tool.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"])
PUNCTUATION |= {".", "?", "!", ",", ":", "-", "--", "...", ";"}

# Letters newer than the lexer's Unicode 6, which it does not recognize (ranges may include non-letters).
_LATER_LETTERS = """
037F 0528-052F 0560 0588 05EF 0860-088E 08A1 08AD-08C9 0978 0980 09FC 0AF9 0C34 0C5A-0C5D 0C80 0CDD 0D04 0D54-0D5F 0E86
0E89 0E8C 0E8E-0E93 0E98 0EA0 0EA8-0EA9 0EAC 13F5-13FD 16F1-16F8 170D 171F 1878 191D-191E 19B0-19C0 19C8-19C9 1B4C
1C80-1CBF 1CF2-1CF3 1CFA 2C2F 2C5F 312E-312F 31BB-31BF 4DB6-4DBF 9FCD-9FFF A698-A69D A78F A794-A79F A7AB-A7F7 A8FD-A8FE
A9E0-A9FE AA7E-AA7F AB30-ABBF"""
_LATER_DIGITS = "0DE6-0DEF A9F0-A9F9"
# Marks (and the soft hyphen) that count as letters of a word; ranges may include letters.
_WORD_MARKS = """
00AD 02C2-0379 0384-0385 03F6 0483-0487 055A-055F 0591-05BD 05BF 05C1-05C2 05C4-05C5 05C7 0615-061A 064B-065E 0670
06D6-06ED 06FD-06FE 070F-07B0 07EB-07F3 0900-0903 093C-094E 0951-0955 0962-0963 0981-0983 09BC-09C4 09C7-09C8 09CB-09CD
09D7 09E2-09E3 0A01-0A03 0A3C 0A3E-0A4F 0A81-0A83 0ABC-0ACF 0B82 0BBE-0BC2 0BC6-0BC8 0BCA-0BCD 0C01-0C03 0C3E-0C56
0D3E-0D44 0D46-0D48 0E31-0E3A 0E47-0E4E 0EB1-0EBC 0EC8-0ECD"""
# Characters that form a token by themselves unless an earlier rule matches them.
_SYMBOLS = """
0025-0026 002B-002F 003A-003B 003D 005C 005E 007C 007E 00A1-00AC 00AE-037E 0387 0589 05BE-05C6 05F3-05F4 0600-0603
0606-060C 0614-061B 061E-061F 066A 066D-070D 07F6-07F8 07FA 0964-0965 0E4F 1FBD 2016-2023 2030-203B 203E-2042 2044
207A-208E 2100-214F 2190-2BFF 3001-3002 3012 30FB FF01-FF65"""

_QUOTES = {"&apos;": "'", "&quot;": "''", '"': "''"}
_QUOTES |= dict.fromkeys("\x91\u2018\u201b\u2039", "`") | dict.fromkeys("\x92\u2019\u203a", "'")
_QUOTES |= dict.fromkeys("\x93\u201c\xab", "``") | dict.fromkeys("\x94\u201d\xbb", "''")
_QUOTE = re.compile("|".join(_QUOTES))
_SIGNS = {"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3", "\xa2": "cents", "\xa3": "#"}
_SIGNS |= dict.fromkeys("\x80\xa4\u20a0\u20ac", "$")
_BRACKETS = dict(zip("()[]{}", ["-LRB-", "-RRB-", "-LSB-", "-RSB-", "-LCB-", "-RCB-"], strict=True))
_BRACKETS |= {"&lt;": "<", "&gt;": ">"}

# How a rule transforms its token.
_FORMS: dict[str, Callable[[str], str]] = {
    "as is": lambda token: token,
    "none": lambda token: "",
    "word": lambda token: token.replace("\xad", "") or "-",
    "quote": lambda token: _QUOTE.sub(lambda match: _QUOTES[match[0]], token),
    "ampersand": lambda token: re.sub("(?i:&amp;)", "&", token),
    "joined": lambda token: token.replace(" ", "\xa0"),
    "brackets": lambda token: token.replace(" ", "\xa0").replace("(", "-LRB-").replace(")", "-RRB-"),
    "bracket": lambda token: _BRACKETS.get(token.lower(), token),
    "sign": lambda token: _SIGNS.get(token, token),
    "dashes": lambda token: token if len(token) > 4 else "--",
}

# Parts of the rules; {NAME} refers to another part. L, M and D are contents of character sets: letters, marks, digits.
_PARTS = {
    "SPACE": r"[ \t\xa0\u2000-\u200a\u3000]",
    "SPACENL": r"(?:{SPACE}|\r?\n|[\r\x0b\x0c\x85\u2028\u2029])",
    "SPLET": r"&[aeiouAEIOU](?i:acute|grave|uml);",
    # ASCII letters, and the characters that case-fold to one.
    "ALPHA": r"[A-Za-z\u0130\u0131\u017f\u212a]",
    "LET": r"[{L}]",
    "LETDIG": r"[{L}{D}]",
    "DIG": r"[{D}]",
    "CHAR": r"(?:[{L}{M}{D}]|{SPLET})",
    "WORD": r"(?:[{L}{M}]|{SPLET}){CHAR}*(?:[.!?](?:[{L}{M}]|{SPLET}){CHAR}*)*",
    "APOS": r"(?:['\x92\u2019]|(?i:&apos;))",
    "ANYAPOS": r"(?:['\x92\u2019`\x91\u2018\u201b]|(?i:&apos;))",
    "CLITIC": r"{APOS}(?:[msdMSD]|(?i:re|ve|ll))",
    "NOT": r"(?i:n){ANYAPOS}(?i:t)",
    "NAME": r"[A-Za-z][A-Za-z0-9_:.-]*",
    "VALUE": r"""(?:"[^"\n]*"|'[^'\n]*')""",
    "SGML": r"<(?:[!?][A-Za-z-][^>\r\n]*|{NAME}(?:[ ]+{NAME}(?:[ ]*=[ ]*{VALUE})?)*[ ]*/?|/{NAME})[ ]*>",
    "NATIONS": r"(?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r))",
    "ACRO": r"(?:{NATIONS}|[A-Za-z](?:\.[A-Za-z])*)",
    "PIECE": r"(?:[dDoOlL]{ANYAPOS}{LETDIG})?{LETDIG}+",
    "THING": r"{PIECE}(?:[-_\u058a\u2010\u2011]{PIECE})*",
    "TAIL": r"(?:(?:{NATIONS}|[A-Za-z](?:\.[A-Za-z])+)\.|[A-Za-z0-9\xad]+)",
    "HTHING": r"[A-Za-z0-9][A-Za-z0-9.,\xad]*-{TAIL}(?:-{TAIL})*",
    "CAPS": r"[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+",
    "SLASHED": r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}",
    "URL": r"""[^ \t\n\f\r"<>|()]""",
    "URLEND": r"""[^ \t\n\f\r"<>|.!?(){},-]""",
    # A character beyond U+FFFF counts as two for the lexer, which is enough for a path.
    "PATH": r"{URL}*(?:{URL}{URLEND}|[\U00010000-\U0010ffff])",
    "FULLPATH": r"""(?:(?![{}]){URL})*(?:(?![{}]){URL}{URLEND}|[\U00010000-\U0010ffff])""",
    "HOST": r"(?:(?i:www)\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:{HOSTPART}+\.)+(?i:com|net|org|edu))",
    "HOSTPART": r"""[^ \t\n\f\r"`'<>|.!?(){},-_$]""",
    "MAILPART": r"""[^ \t\n\f\r"<>|(){}.\xa0]""",
    "MAIL": r"(?:<|(?i:&lt;))?[a-zA-Z0-9](?:{MAILPART}|\.)*@(?:{MAILPART}+\.)*{MAILPART}+(?:>|(?i:&gt;))?",
    "NUMBER": r"[-+]?(?:{DIG}*(?:[.:,\xad\u066b\u066c]{DIG}+)+|{DIG}+)",
    "RAISED": r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\xb9\xb2\xb3\u2074-\u2079]+|[\u2080-\u2089]+)",
    "CURRENCY": r"[\x80\xa2-\xa5\u060b\u0e3f\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6]",
    "QUOTES": r"[`\x91-\x94\xab\xbb\u2018-\u201f\u2039\u203a]{1,2}|''|{APOS}",
    "DAYS": "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri",
    "STATES": "ala|(?-i:A)z|ariz|(?-i:A)rk|calif|colo|conn|dak|(?-i:D)el|fla|ga|(?-i:I)ll|ind|kans?|ky|(?-i:L)a"
    "|(?-i:M)ass|md|mich|minn|(?-i:M)iss|mo|mont|neb|nev|okla|(?-i:O)re|(?-i:P)a|penn|tenn|(?-i:T)ex|va|vt|(?-i:W)ash"
    "|wisc?|wyo",
    "FIRMS": r"inc|cos?|corp|pp?t(?-i:[ye])s?|ltd|plc|bancorp|bhd|assn|univ|intl|sys|jr|sr|bros|(?:ed|ph)\.d|blvd|rd"
    "|esq|tel|est|ext|sq|etc|al|seq|bldg|ct|rt",
    "TITLES": "mrs?|ms|(?-i:M)iss|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|mt"
    "|capt|ste?|ave|pres|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|adj|adv|asst|assoc|ens|insp|mlle|mme|msgr|sfc",
    "OTHERS": r"vs|alex|wm|jos|cie|cf|treas|invt|dept|elec|natl|m(?-i:[ft])g|ft|ph",
    # Case-insensitively, "k" also matches the Kelvin sign, which ACRO does not contain.
    "ABBREV": r"(?:[Aa]\.\u212a\.[Aa]|{ACRO}|(?i:{TITLES}|{OTHERS}))",
    "STARTERS": r"A(?i:bout|ccording|dditionally|fter|n|s|t)?|B(?i:ut)|E(?i:arlier)|H(?i:e|er|ere|owever)|I(?i:f|n|t)"
    r"|L(?i:ast)|M(?i:any|ore|r\.|s\.)|N(?i:ow)|O(?i:nce|ne|ther|ur)|S(?i:he|ince|o|ome|uch)"
    r"|T(?i:hat|heir|he|hen|here|hese|hey|his)|W(?i:e|hen|hile|hat)|Y(?i:et|ou)",
    "FILETYPES": "bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py"
    "|sql|tar|txt|wav|x|xml|zip",
    "APOWORD": r"[A-HJ-XZn]{ANYAPOS}{LET}{LET}+|{LET}+[aeiouyAEIOUY]{ANYAPOS}[aeiouA-Z]{LET}*|[lLdDjJ]{APOS}"
    r"|(?i:dunkin|somethin|ol){APOS}|(?i:o){ANYAPOS}(?i:o)|(?i:cont'd)\.?"
    r"|(?i:nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)|{APOS}(?:(?i:em|till?|cause)|[2-9]0(?i:s)|(?i:n){APOS}?)",
    "DIGITS": "[0-9]{2,4}",
    "PHONE": r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:{DIGITS}[- \xa0])?{DIGITS}[- \xa0])[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    r"|(?:(?:\+\+?)?{DIGITS}\.)?{DIGITS}\.[0-9]{3,4}\.[0-9]{3,5}",
    "FACE": r"[\^x=~<>]\.\[\^(?i:x)=[^<\n]*<>\]|[-^x=~<>']_[-^x=~<>']"
    r"|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)",
    "TREEBANK": r"(?i:-(?:rrb|lrb|rcb|lcb|rsb|lsb)-|c\.d\.s|pro-|anti-|s(?:&|&amp;)(?:p-500|ls)|cap{APOS}n|c{APOS}est)",
    "SEPARATOR": r"[,;:\u3001]",
}
# Patterns that the text must contain for a rule to be tried.
_APOSTROPHE = r"['\x91\x92`\u2018\u2019\u201b]|&(?i:apos;)"
_HOST_NAME = r"\.(?i:com|net|org|edu)|(?i:www)\."
_FILE_NAME = r"\.(?i:{FILETYPES})(?:{SPACENL}|[.?!,]|\Z)"

# (first character, token, required right context, form, pattern the text must contain); the order decides ties.
_RULES: list[tuple[str, str, str, str, str]] = [
    ("[cCfF]", r"(?i:c\+\+|[cf]\#)", "", "as is", ""),
    ("[cC]", "(?i:can)", "(?i:not)", "as is", ""),
    ("[gGwW]", "(?i:gon|wan)", "(?i:na)", "as is", ""),
    ("[gG]", "(?i:got)", "(?i:ta)", "as is", ""),
    ("[gGlL]", "(?i:gim|lem)", "(?i:me)", "as is", ""),
    ("'", "(?i:'t)", "(?i:is|was)", "as is", ""),
    ("<", "{SGML}", "", "joined", ">"),
    (r"[&\x96\x97\u2013-\u2015]", r"(?i:&(?:md|mdash|ndash);)|[\x96\x97\u2013-\u2015]", "", "none", ""),
    ("&", "(?i:&amp;)", "", "ampersand", ""),
    ("&", r"(?i:&(?:ht|tl|ur|lr|qc|ql|qr|odq|cdq|\#[0-9]+);)", "", "as is", ""),
    ("[&{L}{M}]", "{WORD}", "{CLITIC}", "word", _APOSTROPHE),
    (r"[A-Za-z\xad]", r"[A-Za-z\xad]*[A-MO-Za-mo-z]\xad*", "{NOT}", "word", _APOSTROPHE),
    ("[&{L}{M}]", "{WORD}", "", "word", ""),
    (r"[&'\x92\u2019{L}]", "{APOWORD}", "", "as is", _APOSTROPHE),
    ("[yY]", "(?i:y){APOS}", "{LET}", "as is", _APOSTROPHE),
    ("[hH]", r"(?i:https?://){FULLPATH}", "", "as is", "//"),
    ("[wW]|{HOSTPART}", "{HOST}/{PATH}|{HOST}", "", "as is", _HOST_NAME),
    ("[&<a-zA-Z0-9]", "{MAIL}", "", "as is", "@"),
    ("[@#]", r"@[a-zA-Z_][a-zA-Z_0-9]*|\#(?:[{L}{M}]|{SPLET})+", "", "as is", ""),
    (r"[&'\x92\u2019]", "{CLITIC}", "[^A-Za-z]", "quote", ""),
    ("[nN]", "{NOT}", "[^A-Za-z]", "quote", _APOSTROPHE),
    ("[nN]", "{NOT}", "", "quote", _APOSTROPHE),
    ("{DIG}", "{DIG}{1,2}[-/]{DIG}{1,2}[-/]{DIG}{2,4}", "", "as is", ""),
    (r"[-+.:,\xad\u066b\u066c{D}]", "{NUMBER}", "", "word", ""),
    (r"[\u2070-\u208b\xb2\xb3\xb9]", "{RAISED}", "", "as is", ""),
    ("{DIG}", r"(?:{DIG}{1,4}[- \xa0])?{DIG}{1,4}(?:\\?/|\u2044){DIG}{1,4}", "", "joined", ""),
    (r"[\xbc-\xbe\u2153-\u215e]", r"[\xbc-\xbe\u2153-\u215e]", "", "sign", ""),
    (r"[-cCpPaAsS\u017f]", "{TREEBANK}", "", "ampersand", ""),
    ("[A-Za-z0-9]", r"{SLASHED}(?:\\?/{SLASHED}){1,2}", "", "as is", "/"),
    ("[A-Z$#]", r"[A-Z]*\$|\#", "", "as is", ""),
    ("{CURRENCY}", "{CURRENCY}", "", "sign", ""),
    ("[A-Za-z]", "[A-Za-z]", r"\.{SPACENL}+(?:{STARTERS}|{SGML}){SPACENL}", "as is", r"\."),
    ("{ALPHA}", r"(?i:ca|figs?|prop|nos?|art|bldg|pp|op)\.", "{SPACENL}?{DIG}", "as is", r"\."),
    ("{ALPHA}", r"(?i:pt(?-i:[eyEY])|co)\.", "{SPACE}(?i:ltd|lim)", "as is", r"\."),
    ("{ALPHA}", r"(?i:{DAYS}|{STATES}|{FIRMS})\.", "(?s:.{0,2})", "as is", r"\."),
    ("{ALPHA}", r"{ABBREV}\.", "", "as is", r"\."),
    ("{ALPHA}", "{ABBREV}", "{SPACE}", "as is", ""),
    ("{ALPHA}", "{ACRO}", "{SPACENL}", "as is", ""),
    (r"[&'\x92\u2019]", "{APOS}[0-9][0-9]", "{SPACENL}", "as is", ""),
    ("[&{L}{M}{D}]", r"{CHAR}+(?:\.{CHAR}+)*\.(?i:{FILETYPES})", "(?:{SPACENL}|[.?!,])", "as is", _FILE_NAME),
    ("[&{L}{M}]", r"{WORD}\.", "{SEPARATOR}", "word", r"\."),
    ("[<>:;=]", r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "[^A-Za-z0-9]", "brackets", ""),
    ("[-^x=~<>'(]", "{FACE}", "", "brackets", ""),
    ("[(+0-9]", "{PHONE}", "", "brackets", ""),
    ('["&]', '"|(?i:&quot;)', "", "quote", ""),
    (r"[][(){}<>&]", r"[][(){}<>]|(?i:&[lg]t;)", "", "bracket", ""),
    ("-", "-+", "", "dashes", ""),
    (r"[.\x85\u2026]", r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\x85\u2026]", "", "none", ""),
    ("[A-Za-z0-9]", r"{HTHING}\.", "{SEPARATOR}", "word", "-"),
    ("[A-Za-z0-9]", "{HTHING}", "", "word", "-"),
    ("{LETDIG}", r"{THING}\.", "{SEPARATOR}", "as is", r"\."),
    ("{LETDIG}", "{THING}", "", "as is", ""),
    ("[A-Z]", r"{CAPS}\.", "{SEPARATOR}", "ampersand", "[&+]"),
    ("[A-Z]", "{CAPS}", "", "ampersand", "[&+]"),
    ("'", "'", r"[A-Za-z][^ \t\n\r\xa0]", "none", ""),
    (r"[&'\x92\u2019]", "{CLITIC}", "", "quote", ""),
    (r"[&'`\x91-\x94\xab\xbb\u2018-\u203a]", "{QUOTES}", "", "quote", ""),
    ("[^A-Za-z0-9]", r"@+|\#+|_+|\*+|(?:\\\*){1,3}|<<|>>|[?!]+|[{SYMBOLS}]", "", "as is", ""),
    ("{SPACE}", "{SPACE}+", "", "none", ""),
    ("&", "(?i:&nbsp;)", "", "none", ""),
]


class _Rule(NamedTuple):
    first: re.Pattern[str]
    pattern: re.Pattern[str]
    form: Callable[[str], str]
    needs: str


def _ranges(text: str) -> list[tuple[int, int]]:
    """Parse code points such as `02C2-02C5 0384` into (first, last) pairs."""
    bounds = [item.split("-") for item in text.split()]
    return [(int(bound[0], 16), int(bound[-1], 16)) for bound in bounds]


def _set(ranges: list[tuple[int, int]]) -> str:
    """The contents of a regular expression's character set."""
    return "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in ranges)


def _category(category: str, later: str) -> str:
    """A character set of the characters of a category up to U+FFFF that exist in the lexer's Unicode version."""
    unknown = {code for low, high in _ranges(later) for code in range(low, high + 1)}
    ranges: list[tuple[int, int]] = []
    for code in range(0x10000):
        if unicodedata.category(chr(code)).startswith(category) and code not in unknown:
            start = ranges.pop()[0] if ranges and ranges[-1][1] == code - 1 else code
            ranges.append((start, code))
    return _set(ranges)


@cache
def _parts() -> dict[str, str]:
    sets = {"M": _set(_ranges(_WORD_MARKS)), "SYMBOLS": _set(_ranges(_SYMBOLS))}
    return _PARTS | sets | {"L": _category("L", _LATER_LETTERS) + "\u1885\u1886", "D": _category("Nd", _LATER_DIGITS)}


def _expand(pattern: str) -> str:
    return re.sub(r"\{([A-Z]+)\}", lambda match: _expand(_parts()[match[1]]), pattern)


@cache
def _rules() -> list[_Rule]:
    return [
        _Rule(re.compile(_expand(first)), re.compile(f"({_expand(token)}){_expand(after)}"), _FORMS[form], needs)
        for first, token, after, form, needs in _RULES
    ]


@cache
def _needs() -> list[tuple[str, re.Pattern[str]]]:
    return [(needs, re.compile(_expand(needs))) for needs in sorted({rule[4] for rule in _RULES})]


@cache
def _candidates(first: str, present: frozenset[str]) -> list[_Rule]:
    """The rules that can match a token with this first character."""
    return [rule for rule in _rules() if rule.needs in present and rule.first.match(first)]


_PLAIN_WORD = re.compile(r"([A-Za-z]+) [ \t\xa0\u2000-\u200a\u3000]*")
_LOOKAHEAD = 200  # characters of the next captions; longer than any right context
_ASSIMILATED = frozenset(["cannot", "gonna", "gotta", "wanna", "gimme", "lemme"])


def _tokens(text: str, following: str) -> list[str]:
    """The lexer's tokens of a text, given the text that follows it."""
    present = frozenset(needs for needs, pattern in _needs() if pattern.search(text))
    tokens, place, end = [], 0, len(text)
    text += following
    while place < end:
        plain = _PLAIN_WORD.match(text, place)
        if plain and plain[1].lower() not in _ASSIMILATED:
            tokens.append(plain[1])
            place = plain.end()
            continue
        reach, best, form = place, place + 1, _FORMS["none"]
        for rule in _candidates(text[place], present):
            match = rule.pattern.match(text, place)
            if match and match.end() > reach:
                reach, best, form = match.end(), match.end(1), rule.form
        tokens.append(form(text[place:best]))
        place = best
    return [token for token in tokens if token]


def tokenize_captions(captions: Sequence[str]) -> list[str]:
    """Tokenize captions for ROUGE-L and CIDEr as in one call of the tool, where each sees the captions after it.

    Args:
        captions: The captions in the order of the call. A newline counts as a space.

    Returns:
        The lower-cased tokens of each caption without punctuation, joined by single spaces.
    """
    results: list[str] = []
    following = ""
    for caption in reversed(captions):
        text = caption.replace("\n", " ")
        line = " ".join(_tokens(text, following)).lower().rstrip()
        results.append(" ".join(token for token in line.split(" ") if token not in PUNCTUATION))
        following = ("\n" + text + following)[:_LOOKAHEAD]
    return results[::-1]
