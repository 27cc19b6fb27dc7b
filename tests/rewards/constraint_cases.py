"""Hand-made answers for every constraint: (kwargs, answers that satisfy it, answers that do not). Each verdict was decided by reading the answer."""

from __future__ import annotations

from typing import Any

Case = tuple[dict[str, Any], list[str], list[str]]

CASES: dict[str, list[Case]] = {
    "length_constraints:number_words": [
        (
            {"relation": "at least", "num_words": 4},
            ["one two three four", "It's a well-known fact.", "1 2 3 4 5"],
            ["one two three", "don't do-it !!", "a — b — c"],
        ),
        ({"relation": "less than", "num_words": 3}, ["Hi there.", "x"], ["one two three", "a b c d"]),
        ({"relation": "exactly", "num_words": 2}, ["Hello, world!", "नमस्ते दुनिया", "été là"], ["Hello", "a b c"]),
    ],
    "length_constraints:number_sentences": [
        (
            {"relation": "at least", "num_sentences": 2},
            ["One. Two.", "Really?! Yes", "He paid 3.50 euros. Good.", "- a\n- b", "First\n\nSecond", "他来了。她走了。"],
            ["Dr. J. Smith left at 5 p.m. today", "Only one sentence here.", "It costs 3.50 euros.", "no end"],
        ),
        (
            {"relation": "less than", "num_sentences": 2},
            ["Mr. Brown, i.e. my boss, came.", "1. First point only."],
            ["One. Two.", 'He said "Go." She went.'],
        ),
        (
            {"relation": "exactly", "num_sentences": 3},
            ["A cat. A dog! A bird?", "He is tall.\nShe is not. They are."],
            ["A cat. A dog!", "A. b. c. d and e."],
        ),
    ],
    "length_constraints:number_paragraphs": [
        (
            {"num_paragraphs": 2},
            ["one\n***\ntwo", "one\n\n***\n\ntwo\n\nstill two", "***\none\n***\ntwo\n***"],
            ["one\n\ntwo", "one", "one\n***\ntwo\n***\nthree", "one\n***\n***\ntwo", "one\n******\ntwo"],
        ),
        ({"num_paragraphs": 1}, ["just one", "one **bold** word"], ["one\n***\ntwo", "a *** b"]),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "firms"},
            ["One.\n\nFirms grow.", 'a\n\n\n"firms" grow', "a\n \n**FIRMS**, they grow"],
            ["Firms.\n\nGrow", "One.\nFirms grow.", "One.\n\nFirmscape", "a\n\nb\n\nFirms", "a\n\nThe firms"],
        ),
        ({"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}, [], ["a", "b\n\na"]),
    ],
    "length_constraints:plain_paragraphs": [
        ({"relation": "exactly", "num_paragraphs": 2}, ["a\n\nb", "a\nstill a\n\n\n\nb\n"], ["a\nb", "a\n\nb\n\nc"]),
        ({"relation": "at least", "num_paragraphs": 1}, ["a", "a\n\nb"], ["", "\n\n"]),
    ],
    "length_constraints:word_window": [
        ({"min_words": 2, "max_words": 3}, ["a b", "a b c", "a, b!"], ["a", "a b c d", "one-word"]),
        ({"min_words": 3, "max_words": 2}, [], ["a b", "a b c"]),
    ],
    "length_constraints:character_window": [
        ({"min_characters": 3, "max_characters": 5}, ["abc", "ab cd", "  abc  ", "日本語"], ["ab", "abcdef", "  a  "]),
    ],
    "length_constraints:sentence_window": [
        ({"min_sentences": 1, "max_sentences": 2}, ["One.", "One. Two!", "no stop"], ["A cat. A dog. A bird.", "...", "!?"]),
    ],
    "length_constraints:number_lines": [
        ({"relation": "exactly", "num_lines": 2}, ["a\nb", "a\n\nb\n"], ["a b", "a\nb\nc", "a\n \n"]),
    ],
    "length_constraints:sentence_length": [
        ({"max_words": 3}, ["I am here. You are there.", "Go!"], ["I am not here.", "Go. But do come back."]),
    ],
    "keywords:existence": [
        (
            {"keywords": ["intern", "grow"]},
            ["Our internship lets you grow.", "INTERN GROW", "grow\nintern"],
            ["intern", "grown ups", "in tern grow"],
        ),
        ({"keywords": ["C++ (new)"]}, ["I like c++ (new)."], ["I like C (new).", "CCC new"]),
    ],
    "keywords:frequency": [
        (
            {"relation": "at least", "keyword": "story", "frequency": 2},
            ["A story in a story.", "Story, STORY", "history story"],
            ["One story.", "stories and stories"],
        ),
        ({"relation": "less than", "keyword": "war", "frequency": 1}, ["Peace only.", "no conflict"], ["war", "A warm day"]),
        ({"relation": "less than", "keyword": "a.b", "frequency": 1}, ["axb", "a b"], ["a.b", "A.B!"]),
    ],
    "keywords:forbidden_words": [
        (
            {"forbidden_words": ["rock", "big deal"]},
            ["A rocket and rocks.", "A big, deal", "bigdeal"],
            ["A rock!", "ROCK", "a-rock", "no Big Deal here"],
        ),
    ],
    "keywords:letter_frequency": [
        ({"let_relation": "at least", "letter": "q", "let_frequency": 2}, ["Quick quiz", "qQ"], ["Quick", "nothing"]),
        ({"let_relation": "less than", "letter": "#", "let_frequency": 3}, ["# a # b", "none"], ["###", "#a #b #c #d"]),
        ({"let_relation": "less than", "letter": "N", "let_frequency": 1}, ["All clear"], ["one", "No"]),
    ],
    "keywords:whole_word_frequency": [
        (
            {"relation": "exactly", "keyword": "river", "frequency": 2},
            ["The river is a river.", "River, RIVER!", "river-river"],
            ["rivers river", "river river river", "river"],
        ),
        ({"relation": "at least", "keyword": "ice cream", "frequency": 1}, ["Ice cream!", "an ice cream"], ["ice creams", "nice cream"]),
    ],
    "keywords:in_order": [
        ({"keywords": ["sun", "moon"]}, ["The sun, then the moon.", "moon sun moon", "SUN Moon"], ["moon then sun", "sunny moon", "sun"]),
        ({"keywords": ["a", "a"]}, ["a b a", "A a"], ["a", "an ant"]),
    ],
    "keywords:one_of": [
        ({"keywords": ["tea", "coffee"]}, ["I drink tea, only tea.", "Coffee."], ["tea and coffee", "water", "teas"]),
    ],
    "keywords:forbidden_letters": [
        ({"letters": "eZ"}, ["A cat ran.", "Sky high"], ["hello", "Zoo", "E"]),
    ],
    "keywords:no_word_over": [
        ({"max_frequency": 1}, ["each word once", "A b c."], ["the cat the", "No, no!"]),
        ({"max_frequency": 2}, ["no no yes"], ["no No NO", "a a a b"]),
    ],
    "keywords:distinct_words": [
        ({"relation": "at least", "num_words": 3}, ["a b c", "a a b c"], ["a a a a", "A a b B"]),
    ],
    "detectable_format:json_format": [
        (
            {},
            ['{"a": 1}', "[1, 2]", '```json\n{"a": [true, null]}\n```', "```\n[]\n```", '  {"a": "x"}\n', '"text"'],
            ["{a: 1}", 'Here: {"a": 1}', '{"a": 1} done', "```json\n{}\n```\nbye", "{'a': 1}", "NaN", '{"a": Infinity}', "[1,]"],
        ),
    ],
    "detectable_format:json_keys": [
        (
            {"keys": ["name", "age"]},
            ['{"name": "A", "age": 3}', '```json\n{"age": 1, "name": 2, "x": 3}\n```'],
            ['{"name": 1}', '["name", "age"]', "name age", '{"x": {"name": 1, "age": 2}}'],
        ),
    ],
    "detectable_format:title": [
        ({}, ["<<A day>>\ntext", "text <<x>> text", "# <<Joy>>"], ["<A day>", "<< >>", "<<A\nday>>", "<<A day>", "<<>>"]),
    ],
    "detectable_format:number_highlighted_sections": [
        (
            {"num_highlights": 2},
            ["*one* and *two*", "**one** x *two*", "***a*** *b c d*", "*a*\n*b*\n*c*"],
            ["*one*", "* one\n* two\n* three", "** **  * *", "*one\ntwo* and *three*", "2 * 3 * 4 * 5"],
        ),
        ({"num_highlights": 1}, ["* a *bold* bullet", "*x*"], ["* bullet", "plain", "****", "**"]),
    ],
    "detectable_format:multiple_sections": [
        (
            {"section_spliter": "SECTION", "num_sections": 2},
            ["SECTION 1\na\nSECTION 2\nb", "**SECTION 1**\nx\n\n**SECTION 2**\ny\nSECTION 3", "SECTION1 a SECTION2 b"],
            ["SECTION 1\na", "Section 1\na\nSection 2", "SECTION one SECTION two", "SECTION 1 and SECTION 1", "SUBSECTION 1 SUBSECTION 2"],
        ),
    ],
    "detectable_format:number_bullet_lists": [
        (
            {"num_bullets": 2},
            ["* a\n* b", "- a\n- b", "Intro:\n* a\n  - b\nEnd", "*a\n-b", "• a\n• b", "+ a\n---\n+ b"],
            ["* a", "* a\n* b\n* c", "1. a\n2. b", "**a**\n**b**", "---\n***", "text - a - b"],
        ),
        ({"num_bullets": 1}, ["* **bold** bullet\n**no bullet**"], ["- a\n- b", "*** a"]),
    ],
    "detectable_format:bullets": [
        ({"relation": "at least", "num_bullets": 2}, ["- a\n- b\n- c", "* a\n* b"], ["- a", "a\nb"]),
        ({"relation": "exactly", "num_bullets": 0}, ["text", "1. a"], ["- a", "• b"]),
    ],
    "detectable_format:only_bullets": [
        ({}, ["- a\n- b", "* a\n\n* b\n"], ["Intro\n- a", "- a\nmore", "text", "**a**"]),
    ],
    "detectable_format:numbered_list": [
        (
            {"num_items": 3},
            ["1. a\n2. b\n3. c", "Here:\n1) a\n2) b\n\n3) c\nBye"],
            ["1. a\n2. b", "1. a\n3. b\n2. c", "- a\n- b\n- c", "1. a\n1. b\n1. c", "1.a 2.b 3.c"],
        ),
    ],
    "detectable_format:table": [
        (
            {},
            ["| a | b |\n|---|---|\n| 1 | 2 |", "Text\n\na | b\n:-- | --:\n1 | 2\n\nEnd", "| a |\n|---|\n| 1 |"],
            ["| a | b |\n| 1 | 2 |", "| a | b |\n|---|---|", "a b\n---\n1 2", "| a |\n|---|---|\n| 1 | 2 |"],
        ),
        (
            {"num_rows": 2},
            ["| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |", "|x\\|y|b|\n|-|-|\n|1|2|\n|3|4|\ntext"],
            ["| a | b |\n|---|---|\n| 1 | 2 |", "|a|b|\n|-|-|\n|1|2|\n|3|4|\n|5|6|"],
        ),
    ],
    "detectable_format:code_block": [
        ({}, ["```\nx = 1\n```", "Look:\n```python\nprint()\n```\nDone"], ["`x = 1`", "```\nx = 1", "```\n\n```", "    x = 1"]),
        ({"language": "python"}, ["```Python\nx\n```", "```js\ny\n```\n```python\nx\n```"], ["```\nx\n```", "```js\nx\n```"]),
    ],
    "detectable_format:no_markdown": [
        (
            {},
            ["Plain text.\nTwo lines.", "1. a\n2. b", "2 * 3 = 6 #tag", "snake_case"],
            ["# Title", "a **bold** b", "- a", "> quote", "[a](http://b)", "```\nx\n```"],
        ),
    ],
    "detectable_format:heading": [
        ({"num_headings": 1}, ["# A\ntext", "text\n### B"], ["text", "#tag", "# A\n## B", "# \ntext"]),
    ],
    "detectable_format:constrained_response": [
        (
            {},
            ["My answer is yes.", "Well. My answer is no. Sorry", "My answer is maybe."],
            ["yes", "My answer is yes", "my answer is no.", "My answer is yes. My answer is no."],
        ),
    ],
    "detectable_format:choice": [
        ({"choices": ["Yes", "No", "I do not know"]}, ["yes", "No.", " i do not know ", "NO"], ["Yes, it is", "maybe", "yes no", "not"]),
    ],
    "detectable_content:number_placeholders": [
        (
            {"num_placeholders": 2},
            ["Dear [name], come to [place]", "[a][b]", "[x y] [z]\n[w]"],
            ["Dear [name]", "[] []", "[a](http://x) [b]", "[a\nb] [c", "(a) (b)"],
        ),
        ({"num_placeholders": 1}, ["[[name]]"], ["[ ]", "name"]),
    ],
    "detectable_content:postscript": [
        (
            {"postscript_marker": "P.S."},
            ["Hi.\nP.S. Call me.", "Bye. P.S. more", "x\n**P.S.** bold", "a\n\np.s: low", "x\nP. S. spaced"],
            ["Hi.", "x\nP.S.", "x\nP.P.S. no", "the P.S. is late", "x\nPS more"],
        ),
        (
            {"postscript_marker": "P.P.S"},
            ["x\nP.P.S. yes", "x\nP.P.S yes", "P.S. one\nP.P.S. two"],
            ["x\nP.S. no", "x\nP.P.S.", "x\nP.P.Some"],
        ),
    ],
    "detectable_content:digits": [
        ({"relation": "exactly", "num_numbers": 2}, ["1,000 and 3.5", "In 1999 I had 2."], ["one two", "7", "1 2 3"]),
        ({"relation": "exactly", "num_numbers": 0}, ["none", "two"], ["2", "B2"]),
    ],
    "detectable_content:email": [
        ({}, ["Write to a.b+c@mail.example.org.", "<me@x.de>"], ["me@home", "@x.de", "a@b.c", "me at x.de", "a@@x.de"]),
    ],
    "startend:end_checker": [
        ({"end_phrase": "Peace!"}, ["Bye. Peace!", "peace!\n", '"All. PEACE!"'], ["Peace! Bye", "Peace", "Peace!!?"]),
        (
            {"end_phrase": '"Hope you agree with me."'},
            ["So. Hope you agree with me.", 'x "Hope you agree with me."'],
            ["Hope you agree", "Hope you agree with me"],
        ),
    ],
    "startend:quotation": [
        ({}, ['"Hello."', ' "a\nb" ', "“typographic”", "«bonjour»"], ["Hello", '"Hello', '""', '" "', "'Hello'", '"', '"a" she said']),
    ],
    "startend:start_phrase": [
        (
            {"start_phrase": "Once upon a time"},
            ["Once upon a time, there", "  once upon a time", "ONCE UPON A TIME!"],
            ["So once upon a time", "Once upon a timer", "Once upon"],
        ),
        ({"start_phrase": "Dear you:"}, ["Dear you: hi", "dear you:hi"], ["Dear you hi", "You:"]),
    ],
    "startend:first_word": [
        ({"first_word": "Yes"}, ["Yes, I do", "yes", "**YES** x", '"Yes" he said'], ["Yesterday", "Oh yes", "No"]),
    ],
    "startend:last_word": [
        ({"last_word": "DONE"}, ["I am done", "All of it.\nDONE", "x DONE!!"], ["done it", "abandoned", "DONE now"]),
    ],
    "startend:end_mark": [
        ({"mark": "?"}, ["Why?", 'He said "why?"', "*So?*\n"], ["Why", "? no", "Why?!"]),
    ],
    "change_case:english_capital": [
        (
            {},
            ["HELLO WORLD, THIS IS A TEST OF THE BEST.", "YES", "A1 B2!"],
            ["Hello", "HELLO w", "DIES IST NICHT DER WEG ZU DEM HAUS UND ICH GEHE", "123", "こんにちは"],
        ),
    ],
    "change_case:english_lowercase": [
        (
            {},
            ["hello world, this is a test.", "yes", "i am 12."],
            ["Hello", "i am I", "das ist nicht der weg und ich gehe nach hause", "123", "привет мир это не то и он"],
        ),
    ],
    "change_case:capital_word_frequency": [
        (
            {"capital_relation": "at least", "capital_frequency": 2},
            ["NASA and COVID-19", "I am A B", "STOP! NOW please"],
            ["Nasa", "ONE two Three", "1 2 3", "NAsA NASA"],
        ),
        ({"capital_relation": "less than", "capital_frequency": 1}, ["all low", "Title Case Here"], ["A dog", "so I go"]),
    ],
    "change_case:uppercase": [
        ({}, ["ABC", "ÜBER 3!", "ПРИВЕТ"], ["Abc", "abc", "123", "ẞa"]),
    ],
    "change_case:lowercase": [
        ({}, ["abc", "über 3!"], ["Abc", "ABC", "123", "iPhone"]),
    ],
    "change_case:title_case": [
        ({}, ["A Tale Of Two Cities", "Well-known 3rd Try"], ["A Tale of Two", "123", "iPhone Is Here"]),
    ],
    "change_case:sentence_case": [
        ({}, ["Hello there", '"Hello"', "1. Hello"], ["hello", "HELLO", "123"]),
    ],
    "punctuation:no_comma": [
        ({}, ["No commas here.", "a; b"], ["a, b", "1,000", "你好，世界", "مرحبا، أهلا", ","]),
    ],
    "punctuation:forbidden_marks": [
        ({"marks": "!?"}, ["Calm.", "a, b"], ["Why?", "Go!", "?!"]),
    ],
    "punctuation:mark_frequency": [
        ({"relation": "at least", "mark": "!", "frequency": 3}, ["Go! Go! Go!", "wow!!!"], ["Go!", "wow!! "]),
        ({"relation": "exactly", "mark": "...", "frequency": 1}, ["well... ok", "....."], ["well", "a... b..."]),
    ],
    "combination:repeat_prompt": [
        (
            {"prompt_to_repeat": "Write a haiku about moms."},
            ["Write a haiku about moms.\n\nMom is here", "write a HAIKU  about\nmoms. x", "Write a haiku about moms."],
            ["A haiku about moms.", "Sure! Write a haiku about moms. x", "Write a haiku about moms"],
        ),
    ],
    "combination:repeat_then_answer": [
        ({"prompt_to_repeat": "Say hi."}, ["Say hi.\nHi!", "say hi. hello"], ["Say hi.", "Say hi. !!", "Hi!"]),
    ],
    "combination:two_responses": [
        (
            {},
            ["one\n******\ntwo", "a ****** b", "one\n\n******\n\ntwo\n******"],
            ["one\n***\ntwo", "one", "a\n******\na", "a\n******\n", "a\n******\nb\n******\nc", "a\n*******\nb"],
        ),
    ],
    "language:response_language": [
        (
            {"language": "de"},
            ["Das ist nicht der Weg zu dem Haus und ich gehe.", "Guten Tag"],
            ["This is not the way to the house and I go.", "42", "Привет", "Il est dans la maison et je vais avec les amis."],
        ),
        ({"language": "hi"}, ["यह एक घर है और वह बड़ा है", "नमस्ते"], ["hello my friend", "12 34", "हे एक घर आहे आणि ते मोठे आहे", "বাড়ি"]),
        ({"language": "zh-CN"}, ["你好，世界", "今天 good"[:2]], ["hello", "こんにちは世界"]),
    ],
}
