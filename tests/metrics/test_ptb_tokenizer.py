"""The Python tokenizer against the Java one.

All expected values (golden lines and digests) come from pycocoevalcap 1.2's `PTBTokenizer`, which is Stanford CoreNLP
3.4.1. The tests do not need it; if it is installed, they also run it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rosa_bench.metrics.ptb_tokenizer import PUNCTUATION, tokenize_captions

# A line, its tokens, the next line, ... by the rules they are about. In the call each had "x" for its neighbors.
GOLDEN = {
    "contractions": [
        "Don't say I can't; I CANNOT, you're gonna wanna and I've gotta.",
        "do n't say i ca n't i can not you 're gon na wan na and i 've got ta",
        "They'll 've been there, she'd know: it’s the boys' and James's",
        "they 'll 've been there she 'd know it 's the boys and james 's",
        "’Tis nothing but 'tis late and 'twas, lemme gimme",
        "tis nothing but 't is late and 't was lem me gim me",
        "Y'all know o'clock, O'Reilly, d'Avignon, l'amour and rock 'n' roll",
        "y' all know o'clock o'reilly d'avignon l'amour and rock 'n' roll",
        "Cap'n, c'mon, 'em in the '90s, the 1990's, class of '85 and ol' dunkin' donuts",
        "cap'n c'mon 'em in the '90s the 1990 's class of '85 and ol' dunkin' donuts",
        "isn`t isn&apos;t ISN’T n't don'ts ma'am Qu'ran shi'ite",
        "is n`t is n't is n't n't do n'ts ma'am qu ran shi'ite",
        "the dogs'food x's' 'single' 'a' 'ab cont'd.",
        "the dogs food x 's single a ab cont'd.",
    ],
    "abbreviations": [
        "Mr. and Mrs. Smith, Ph.D., of the U.S. met at 5 p.m.",
        "mr. and mrs. smith ph.d. of the u.s. met at 5 p.m.",
        "E.g. this, i.e. that etc. The end etc.",
        "e.g. this i.e. that etc. the end etc.",
        "Acme Co. Ltd. vs. Foo Inc. and Bar Corp. in Calif. or calif.",
        "acme co. ltd. vs. foo inc. and bar corp. in calif. or calif.",
        "Plan B. The plan B. the C. It",
        "plan b the plan b. the c it",
        "No. 5, no. Five, No.5, fig. 3, ca. 1900, op. cit.",
        "no. 5 no five no. 5 fig. 3 ca. 1900 op cit",
        "La. la. LA. Pa. pa. Miss. miss. Ore. ore. Tex. tex. Az. az.",
        "la. la la. pa. pa miss. miss ore. ore tex. tex az. az",
        "U.S.-U.K. and non-U.S. firms, EU-U.S. x-U.S.",
        "u.s.-u.k. and non-u.s. firms eu-u.s. x-u.s.",
        "Sept. Thurs. St. Ave. Rev. Jr. Sgt. dept. a.k.a. Wm.",
        "sept. thurs. st. ave. rev. jr. sgt. dept. a.k.a. wm.",
        "It ends.The next starts!And one more?yes a.b.C",
        "it ends.the next starts!and one more?yes a.b.c",
    ],
    "numbers": [
        "1,000.50 or 3.14, .5 and -5 at 12:30pm, 5:30 10% 20°C",
        "1,000.50 or 3.14 .5 and -5 at 12:30 pm 5:30 10 % 20 ° c",
        "5 7/8 inches, 1/2 cup, 10-1/2, ½ ⅓ ⅔ ⅛ and 1½",
        "5\xa07/8 inches 1/2 cup 10-1/2 1/2 1/3 2/3 \u215b and 1 1/2",
        "Call (555) 123-4567 or +1 555 123 4567 or 555.123.4567 or 555-1234",
        "call -lrb-555-rrb-\xa0123-4567 or +1 555\xa0123\xa04567 or 555.123.4567 or 555-1234",
        "10/12/2014, 1-2-99, 2014-12-10 and 10-20 or £20-25",
        "10/12/2014 1-2-99 2014-12-10 and 10-20 or # 20-25",
        "1st 2nd 90s 3D 4x4 x² m³ H₂O ⁺² ٣٫١٤",
        "1st 2nd 90s 3d 4x4 x ² m ³ h ₂ o ⁺² ٣٫١٤",
        "5'6\" 5\\/6 1⁄2 000 1.2.3",
        "5 6 5\\/6 1⁄2 000 1.2.3",
    ],
    "money": [
        "\xa320 \u20ac30 \xa540 \xa250 $60 US$70 A$80 \u20a490 \u20b995 \x80 \xa4",
        "# 20 $ 30 ¥ 40 cents 50 $ 60 us$ 70 a$ 80 ₤ 90 95 $ $",
        "less than £20.",
        "less than # 20",
        "#1 #tag #tag1 ## # 5",
        "# 1 #tag #tag 1 ## # 5",
    ],
    "hyphens and dashes": [
        "well-known mother-in-law's pro-life anti-war co-ed's",
        "well-known mother-in-law 's pro-life anti-war co-ed 's",
        "a - b -- c --- d ---- e ----- f – g — h ― i ‐ j",
        "a b c d e ----- f g h i j",
        "x-y_z snake_case __ _ 4.5-star A-1 -x x- pre-U.S. e-mail-",
        "x-y_z snake_case __ _ 4.5-star a-1 x x pre-u.s. e-mail",
        "and/or km/h he/she/it a/b/c/d a-b/c-d // /",
        "and/or km/h he/she/it a/b/c / d a-b/c-d / / /",
        "&mdash; &ndash; &md;",
        "",
    ],
    "brackets": [
        "(round) [square] {curly} <angle> << >> a)b",
        "-lrb- round -rrb- -lsb- square -rsb- -lcb- curly -rcb- <angle> << >> a -rrb- b",
        "-LRB- x -rrb- -lsb- &lt; &gt; &LT;",
        "-lrb- x -rrb- -lsb- < > <",
        ":) :-( ;D =P :x (^_^) (^.^) ^_^ -_- :)x",
        ":-rrb- :--lrb- ;d =p x -lrb-^_^-rrb- -lrb-^.^-rrb- ^_^ -_- -rrb- x",
    ],
    "markup": [
        "Fish &amp; chips at AT&T, A&AMP;B, S&P-500 and R&D &",
        "fish & chips at at&t a&b s&p-500 and r&d &",
        '<b>bold</b> <a href="x y">link</a> <br/> <!-- note --> <?php x?> 3 < 4 > 2',
        '<b> bold </b> <a\xa0href="x\xa0y"> link </a> <br/> <!--\xa0note\xa0--> <?php\xa0x?> 3 < 4 > 2',
        "caf&eacute; &nbsp; &quot;hi&quot; &#65; &foo; &hellip; &QUOT;",
        "caf&eacute; hi &#65; & foo & hellip &quot;",
    ],
    "addresses": [
        "See http://a.b/c?d=1&e=2. or https://www.x.com/y, www.foo.co.uk/bar.",
        "see http://a.b/c?d=1&e=2 or https://www.x.com/y www.foo.co.uk/bar",
        "foo.com Foo.com foo-bar.org/baz, x.net! bar.edu",
        "foo.com foo.com foo-bar org/baz x.net bar.edu",
        "Mail a.b@c-d.com, <x@y.org> or foo@bar @name @ you",
        "mail a.b@c-d.com, <x@y.org> or foo@bar @name @ you",
        "file.txt a.c 0.c readme.html, foo.py. b.tar.gz 1.2.txt",
        "file.txt a.c 0.c readme.html foo.py b.tar.gz 1.2.txt",
    ],
    "punctuation": [
        "Wow!!! Really?! Yes... no.. well . . . ok ..... end",
        "wow !!! really ?! yes no well ok end",
        "... ? ! , ; : . - ' \" ` `` '' ?? ;; ::",
        "??",
        "* ** *** \\* \\*\\* | ~ ^ = == % + \\",
        "* ** *** \\* \\*\\* | ~ ^ = = = % + \\",
        "C++ C# f# c++11 @@ @@@",
        "c++ c# f# c++ 11 @@ @@@",
        "“curly” ‘single’ „low‟ «guillemets» ‹x› “” ’’ “‘ ``tex''",
        "curly single „ low ‟ guillemets x ``'' ``` tex",
    ],
    "unicode": [
        "Café Élan ÜBER naïve straße İstanbul ﬁn Å",
        "café élan über naïve straße i̇stanbul ﬁn å",
        "日本語のテキスト、中文。한국어 עברית العربية हिन्दी ไทย Привет",
        "日本語のテキスト 、 中文 。 한국어 עברית العربية हिन्दी ไทย привет",
        "😀 ♥ ★★ → ∞ ™ ® © § • … 👍🏽 Ⓐ Ⅷ ①",
        "♥ ★ ★ → ∞ ™ ® © § • ⓐ ①",
        "soft\xadhyphen \xad non\u200bbreaking a\xa0b a\u2003b \ufeffbom",
        "softhyphen non breaking a b a b bom",
        "¡Hola! ¿Qué? ´ ¨ ¯ ¸ · ± × ÷ ¦ ¬",
        "¡ hola ¿ qué ´ ¨ ¯ ¸ · ± × ÷ ¦ ¬",
        "http://\U0001f600 x\U0001f600y \U0001d4b3 a\x7fb \x01 \x96 \x92s",
        "http://😀 x y a b 's",
    ],
    "white space": [
        "",
        "",
        " ",
        "",
        "  two  spaces\tand a tab ",
        "two spaces and a tab",
        "a\nb",
        "a b",
        "\n\n",
        "",
        "word",
        "word",
    ],
}

# One call, in its order: a line sees what the next ones begin with, and nothing follows the last.
CALL = [
    ("He plays in Serie B.", "he plays in serie b"),
    ("The club is in Serie B.", "the club is in serie b."),
    ("it is Serie B.", "it is serie b"),
    ("", ""),
    ("", ""),
    ("It has a Serie A.", "it has a serie a"),
    ("A cup", "a cup"),
    ("in the U.S", "in the u.s"),
    ("in 2010 and '10", "in 2010 and '10"),
    ("The B.", "the b"),
    ("<b> bold", "<b> bold"),
    ("C.", "c"),
    ("\tMr. Smith", "mr. smith"),
    ("in the U.S", "in the u.s"),
    ("of '10", "of 10"),
]

# File, texts in it (each once), start of the SHA-256 of the Java tokenizer's lines for them.
DIGESTS = """
data/e2e_nlg/test.jsonl 5162 f701163d6d5ef6c7
data/e2e_nlg/validation.jsonl 5046 c1b5521a1f97c4ec
data/web_nlg/test.jsonl 9131 ad44e40497847390
data/web_nlg/validation.jsonl 3421 477a1e2785abe601
data/dart/validation.jsonl.gz 9353 8d49d5b241c4cb94
oracle/cases/_shared/dart_sub_refs.jsonl 541 171c85dc8382b5bd
oracle/cases/_shared/e2e_dev80_refs.txt 609 4ff8242e7ed61cf1
oracle/cases/_shared/e2e_test_refs.txt 4533 9dd71170420db498
oracle/cases/_shared/syn_webnlg_refs.jsonl 123 2afa944ead0edf3c
oracle/cases/_shared/webnlg17_sub120_refs.jsonl 227 b4d8d0e7333a10ed
oracle/cases/_shared/webnlg17_test_refs.jsonl 4937 47cf12cee9b55646
oracle/cases/dart_sub250_bart/sys.txt 251 196324ab566e025d
oracle/cases/dart_sub250_degraded/sys.txt 228 b3aa2decfc60bed5
oracle/cases/e2e_dev80_copyref/sys.txt 81 2a943a6acbc8d3df
oracle/cases/e2e_dev80_empty/sys.txt 70 84d5d408649f85dc
oracle/cases/e2e_dev80_heldout/sys.txt 81 a2d925a67ba62650
oracle/cases/e2e_dev80_messy/sys.txt 81 3b60d2979328c26f
oracle/cases/e2e_dev80_permuted/refs.txt 609 1140dc74b97cfdfb
oracle/cases/e2e_dev80_permuted/sys.txt 81 40cdf63c748687c2
oracle/cases/e2e_dev80_refrev/refs.txt 609 bf47284c10cfb9fd
oracle/cases/e2e_dev80_refrev/sys.txt 81 a2d925a67ba62650
oracle/cases/e2e_dev80_rotated/sys.txt 81 4061ebf8d8246e75
oracle/cases/e2e_example/refs.txt 135 ac66d6bc0153f154
oracle/cases/e2e_example/sys.txt 10 ca4550560d4fd4c4
oracle/cases/e2e_lora_tok90/refs.txt 612 7da2f7da6005918d
oracle/cases/e2e_lora_tok90/sys.txt 91 13fda3b2637123db
oracle/cases/e2e_nomatch5/refs.txt 31 05b8139752cc8c40
oracle/cases/e2e_nomatch5/sys.txt 2 db67c20b28ae6b4c
oracle/cases/e2e_test_sheff2/sys.txt 436 c41abc08e43faaa6
oracle/cases/e2e_test_slug/sys.txt 631 17b9df6cc08f9821
oracle/cases/e2e_test_tgen/sys.txt 616 7de7edd5761e8eb2
oracle/cases/e2e_tiny3/refs.txt 7 ec02b441a9e4015f
oracle/cases/e2e_tiny3/sys.txt 4 1e208c7eced7935e
oracle/cases/e2e_zero_token/refs.txt 6 f9e59581bf311ee8
oracle/cases/e2e_zero_token/sys.txt 4 cb2aabc4195ce3dd
oracle/cases/syn_e2e_bad/refs.txt 71 d39cfc8057b13b8d
oracle/cases/syn_e2e_bad/sys.txt 21 6c625cfb348c0698
oracle/cases/syn_e2e_good/refs.txt 71 d39cfc8057b13b8d
oracle/cases/syn_e2e_good/sys.txt 25 99578e3c09fc93bb
oracle/cases/syn_e2e_medium/refs.txt 71 d39cfc8057b13b8d
oracle/cases/syn_e2e_medium/sys.txt 24 63a4951e567de2d6
oracle/cases/syn_webnlg_bad/sys.txt 37 097e59cb20394578
oracle/cases/syn_webnlg_good/sys.txt 44 3dabd7f96a2a4c70
oracle/cases/webnlg_dev120_heldout/refs.jsonl 215 aa29a8a71f208bb4
oracle/cases/webnlg_dev120_heldout/sys.txt 121 66988877ddaee74f
oracle/cases/webnlg_sub120_copyref/sys.txt 121 07b74adea0eeb16c
oracle/cases/webnlg_sub120_empty/sys.txt 105 50c9e3952f5ae40b
oracle/cases/webnlg_sub120_heldout/sys.txt 121 ad998d7ab97ebbdf
oracle/cases/webnlg_sub120_messy/sys.txt 121 43f3de267f7e35c5
oracle/cases/webnlg_sub120_rotated/sys.txt 121 7d38dd0a275988ab
oracle/cases/webnlg_sub120_upper_ascii/sys.txt 121 6506e92c4bfd5097
oracle/cases/webnlg_sub140_bart/refs.jsonl 386 d94c98848d2daa85
oracle/cases/webnlg_sub140_bart/sys.txt 141 33ecd85799fffc3e
oracle/cases/webnlg_test_bartlarge/sys.txt 1858 5276157413a4eacd
"""
LARGE = """
data/e2e_nlg/train.jsonl.gz 45644 8ecc0040a26baa97
data/web_nlg/train.jsonl.gz 20476 03b6f6f85c684fe5
data/dart/test.jsonl.gz 13793 38cecc0faa5b49fc
"""


def tokenize(text: str) -> str:
    """Tokenize a caption that a line end follows."""
    return tokenize_captions([text, ""])[0]


@pytest.mark.parametrize("group", GOLDEN)
def test_golden_lines(group):
    lines = GOLDEN[group]
    assert [tokenize(line) for line in lines[::2]] == lines[1::2]


def test_tokens_depend_on_following_lines():
    assert tokenize_captions([line for line, _ in CALL]) == [tokens for _, tokens in CALL]


def test_other_line_ends_are_white_space():
    for end in ("\r", "\r\n", "\x0b", "\x0c", "\u2028", "\u2029"):
        assert tokenize(f"Serie B.{end}The club's fans") == "serie b the club 's fans"
    assert tokenize("and so on\x85") == "and so on"  # an ellipsis in CP1252


def test_degenerate_texts_are_quick():
    for text in (
        "a,b." * 5000,
        "'" * 20000,
        "<a " * 5000 + ">",
        "x@" * 5000,
        "1a." * 5000,
        "(" * 20000,
        "日本" * 20000,
    ):
        assert tokenize(text) == tokenize(text.replace(" ", "\n"))


def texts(path: Path) -> Iterator[str]:
    """All strings of a file: its lines, or those in its rows."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = content.decode().split("\n")
    if path.suffix == ".txt":
        yield from lines
    else:
        for line in filter(None, lines):
            yield from strings(json.loads(line))


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def agrees(root: Path, entry: str) -> None:
    name, count, digest = entry.split()
    if not (root / name).is_file():
        pytest.skip("this file is not among the real rows")
    captions = list(dict.fromkeys(text.replace("\r", " ").replace("\n", " ") for text in texts(root / name)))
    assert len(captions) == int(count)
    assert hashlib.sha256("\n".join(tokenize_captions(captions)).encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize("entry", DIGESTS.split("\n")[1:-1])
def test_real_texts_have_the_java_tokenizer_s_tokens(entry, shared_data):
    agrees(shared_data.parent, entry)


@pytest.mark.slow
@pytest.mark.parametrize("entry", LARGE.split("\n")[1:-1])
def test_large_files_of_real_texts_have_the_java_tokenizer_s_tokens(entry, shared_data):
    agrees(shared_data.parent, entry)


@pytest.mark.skipif(not (shutil.which("java") and find_spec("pycocoevalcap")), reason="needs Java and pycocoevalcap")
@pytest.mark.filterwarnings("ignore")  # pycocoevalcap's own
def test_agrees_with_java_on_mixtures_of_the_golden_lines():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = [line for group in GOLDEN.values() for line in group[::2]]
    pieces, chance = [piece for line in lines for piece in line.split()], random.Random(1)
    captions = lines + [
        chance.choice(["", " "]).join(chance.choices(pieces, k=chance.randrange(1, 7))) for _ in range(3000)
    ]
    result = PTBTokenizer().tokenize({"call": [{"caption": caption} for caption in captions]})["call"]
    assert tokenize_captions(captions) == result


@given(st.text())
def test_any_text_is_accepted(text):
    tokens = tokenize(text)
    assert not PUNCTUATION.intersection(tokens.split(" "))
    assert tokens == tokens.strip(" ") and "\n" not in tokens


@given(st.text(), st.text())
def test_a_newline_is_a_space(before, after):
    assert tokenize(f"{before}\n{after}") == tokenize(f"{before} {after}")


@given(st.lists(st.text(max_size=20), max_size=5))
def test_each_caption_gives_one_line(captions):
    assert len(tokenize_captions(captions)) == len(captions)
