"""Random texts that exercise the split rules: all kinds of characters, in runs and mixtures. No surrogates."""

import random
import sys
import unicodedata

WORDS = """the of Once upon a time there was THE McDonald iPhone HTTPServer camelCaseWord ALLCAPS Ünïcödé ÉCOLE École naïve
straße ﬁne ŒUVRE ǅungla ǈubav ʰoʷ ªb ºC нещо На Български ЭТО Россия Ελληνικά ΑΒΓ שלום עברית مرحبا العربية ١٢٣ ฉันรักภาษาไทย ก็ได้
हिन्दी में क्या है বাংলা ভাষা தமிழ் ಕನ್ನಡ 日本語 のテスト カタカナー 中文字符 你好世界 한국어 텍스트 ꦗꦮ አማርኛ ⲁⲃⲅ ᏣᎳᎩ ꭰꭱ""".split()
CONTRACTIONS = [quote + end for quote in "'’" for end in "s S t T re Re RE rE ve VE m M ll LL lL d D ſ x r l v e".split()]
NUMBERS = "0 7 42 123 1234 12345 3.14159 1,000,000 0x1F ½ ² Ⅷ ٣٤٥ ४५६ ௧௨ 〇 ①②".split() + ["1" * n for n in range(6, 14)]
SPACES = [" ", "  ", "   ", "\t", "\t\t", "\n", "\r\n", "\n\n", "\r", " \n", "\n ", "  \n  \n", "\u00a0", "\u3000", "\u2028", "\u0085",
          "\u2003", "\u200b", "\v", "\f", "\u1680", "\ufeff", " \t ", "\n\t\t", "        ", "▁", "\u180e"]
EMOJI = ["🦙", "👨‍👩‍👧‍👦", "🇩🇪🇫🇷", "❤️", "👍🏽", "1️⃣", "😀😃", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🤷🏾‍♀️"]
MARKS = ["e\u0301", "\u0301", "a\u0300\u0323", "\u0e31", "\u093e", "\u20dd", "z" + "\u0335" * 9, "\u0308A", "i\u0307"]
CODE = ["fn main() {", "}\n", "    return x;\n", "//", "/* c */", "a/b/c\n", "==", "!=", "->", "=>", "::", "#include <x>\n", "\"str\\n\"", "{{}}",
        "</div>", "<s>", "</s", "x += 1", "====", "----", "////\n\n/", "...", "…", "''", "\"\"", "`", "~~~", "\\", "$x", "@a", "€5", "№", "https://a.b/c?d=e&f"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<unk>", "<0x0A>", "<|fim_pad|>",
           "[PAD32011]", "[PAD151700]", "<|reserved_special_token_0|>", "<|eot_id|>", "<|begin_of_text|>", "<|placeholder1|>", "<|im_", "|>", "</s>"]


def pools():
    """Single characters by general category; private use and unassigned ones are two more pools, kept small."""
    by_category = {}
    for code in range(sys.maxunicode + 1):
        c = chr(code)
        category = unicodedata.category(c)
        if category != "Cs":
            by_category.setdefault(category, []).append(c)
    return by_category


class Texts:
    def __init__(self, seed):
        self.random = random.Random(seed)
        by_category = pools()
        self.characters = [by_category[c] for c in sorted(by_category)]
        self.fixed = [WORDS, WORDS, WORDS, CONTRACTIONS, NUMBERS, SPACES, SPACES, SPACES, EMOJI, MARKS, CODE, SPECIAL]

    def piece(self):
        r = self.random
        kind = r.random()
        if kind < 0.72:
            piece = r.choice(r.choice(self.fixed))
        elif kind < 0.90:
            piece = r.choice(r.choice(self.characters))
        else:
            piece = chr(r.randrange(32, 127))
        how = r.random()
        if how < 0.06:
            piece *= r.randrange(2, 40)
        elif how < 0.09:
            piece = piece.upper()
        elif how < 0.12:
            piece = piece.title()
        return piece

    def text(self):
        r = self.random
        glue = r.choice(["", "", " ", "\n"])
        return glue.join(self.piece() for _ in range(r.randrange(0, 14)))
