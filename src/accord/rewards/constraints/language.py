"""Which language a text is in: by script, and by everyday words and letters where several languages share one. No model, no dependency.

A choice among the languages below, made for whole answers: with fewer than three words in a shared script it says None rather than guess.
Words and letters are everyday knowledge of these languages; tests hold the first article of the Universal Declaration of Human Rights.
"""

from __future__ import annotations

import re

from accord.rewards.constraints.text import words

_SCRIPTS = {
    "latin": "A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ",
    "cyrillic": "Ѐ-ӿ",
    "arabic": "\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f",
    "devanagari": "\u0904-\u0939\u0958-\u0961",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "hebrew": "\u05d0-\u05ea",
    "bengali": "\u0985-\u09b9\u09dc-\u09e1\u09f0\u09f1",
    "gurmukhi": "\u0a05-\u0a39\u0a59-\u0a5e",
    "gujarati": "\u0a85-\u0ab9",
    "tamil": "\u0b85-\u0bb9",
    "telugu": "\u0c05-\u0c39",
    "kannada": "\u0c85-\u0cb9",
    "malayalam": "\u0d05-\u0d39",
    "sinhala": "\u0d85-\u0dc6",
    "thai": "\u0e01-\u0e30",
    "khmer": "\u1780-\u17b3",
    "burmese": "\u1000-\u102a",
    "georgian": "\u10d0-\u10ff",
    "armenian": "\u0531-\u0587",
    "hangul": "\uac00-\ud7a3\u1100-\u11ff",
    "kana": "\u3041-\u30ff",
    "han": "\u4e00-\u9fff\u3400-\u4dbf",
}
_ALONE = {
    "greek": "el",
    "hebrew": "he",
    "bengali": "bn",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "sinhala": "si",
    "thai": "th",
    "khmer": "km",
    "burmese": "my",
    "georgian": "ka",
    "armenian": "hy",
    "hangul": "ko",
    "kana": "ja",
    "han": "zh",
}
_WORDS = {
    "latin": {
        "en": "the and of to in is are was were be been with for that this it its you your they their we our he she his her not but or as at by from have has had will would can could should which who what when where how there than then all any one about into on if do does my i an",
        "de": "der die das und ist sind nicht ein eine einen einem einer zu von mit für auf im den dem des sich auch es ich sie wir ihr er als wie oder aber haben hat wird werden sein war bei nach über dass durch noch nur wenn kann alle zum zur mein",
        "fr": "le la les un une des du de et est sont dans pour que qui il elle nous vous ils elles ne pas ce cette ces avec sur par plus au aux se son sa ses leur mais ou où être ont tous je mon ma mes comme très",
        "es": "el la los las un una unos de del y es son en para que no con por su sus se lo como más pero está están al ser todos muy cuando donde hay este esta estos también tiene yo mi nos o si",
        "pt": "o a os as um uma de do da dos das e é são em no na nos nas para que não com por seu sua se mais mas como ao está ser todos muito quando onde este esta isso também tem eu você ou pelo pela à até minha meu",
        "it": "il lo la gli le un una di del della dei delle e è sono in nel nella per che non con da si più ma come al alla essere tutti molto quando questo questa anche ha o ed suo sua ci io mi dal dalla",
        "nl": "de het een en van is zijn in op met voor dat die niet te er aan ook als bij of maar om hij zij wij je ik worden wordt heeft hebben naar uit door over dit deze was kan alle mijn geen",
        "sv": "och att det är en ett som i på för med av inte den har till de om var men vi jag du han hon från kan ska alla eller så vara sig sina blir när också mycket",
        "da": "og at det er en et som i på for med af ikke den har til de om var men vi jeg du han hun fra kan skal alle eller så være sig deres bliver blev når også meget hvor nu nogle efter hvis hvad min mig",
        "no": "og å at det er en et som i på for med av ikke den har til de om var men vi jeg du han hun fra kan skal alle eller så være seg deres blir ble når også mye hvor nå noen etter hvis hva min meg",
        "fi": "ja on ei se että en ovat oli mutta kun myös hän minä sinä me te he tai joka jotka niin kuin ole olla voi vain jos mitä tämä sen hänen kaikki heidän kanssa hyvin ovat sekä",
        "vi": "và của là có không những các một được cho trong với này người đã để khi từ về như ra cũng đó tôi bạn nhiều phải sẽ đến nên rất làm thì mọi hay",
        "sw": "na ya wa kwa ni katika la za cha kuwa hii huo huu watu wote kama hivyo yake wao hao au si lakini pia sana mimi wewe yeye sisi moja kila ili bila baada yao kwamba vya",
        "tr": "ve bir bu da de için ile olarak çok daha ne o var yok ama gibi en her sonra kadar olan değil ben sen biz siz onlar ise veya mi bütün",
        "pl": "i w nie na się z do to jest że o jak po co ale od za tak są przez dla jego jej ich być może które który która oraz czy wszyscy",
        "cs": "a se na je v že to s z do o i ale jak po pro za by si jsou nebo být ve který která které také všichni sebe jejich jako mají",
        "ro": "și în de la cu o un pe că nu este sunt din pentru care se mai a al ale au fi prin sau dar ce lui ei lor toate ele față",
        "hu": "a az és hogy nem is egy van ez meg de csak el volt már még ha mint minden vagy lesz nagyon azt kell ki sem",
        "id": "yang dan di dari untuk dengan ini itu pada adalah tidak dalam akan ke oleh sebagai atau juga saya kami anda mereka semua orang satu sama telah dapat bisa lain karena ada",
    },
    "cyrillic": {
        "ru": "и в не на что он она они с как это по но из у к же вы за бы мы от так для все его её их или быть есть если когда только очень также я мой который должны",
        "bg": "и в не на че той тя те с как това по но от се да за са е във или ще към със като всички бъде ако когато само също аз много който трябва един",
        "uk": "і в не на що він вона вони з як це по але із у та ви за би ми від так для всі його її їх або бути є якщо коли тільки дуже також я мій який повинні й",
        "sr": "и у не на да он она они са као ово по али из је се ви за би ми од тако сва сви његов или бити су ако када само веома такође ја који треба једни",
    },
    "arabic": {
        "ar": "في من على أن إلى هذا هذه التي الذي لا ما كان مع عن هو هي أو ثم قد كل بين جميع و إن لم بعد كانت هم",
        "fa": "و در به از که این را با است برای آن یک تا می بر هم شد خود هر نیز باید های ها شود همه اند ما شما من دارند یا بود دارد",
        "ur": "کے کی کا میں ہے اور سے کو نے کہ اس یہ پر ہیں نہیں بھی ایک تھا تھے تھی جو وہ ہو گا آپ ہم لئے لیے تمام تو کر اپنے",
    },
    "devanagari": {
        "hi": "है हैं और का की के में से को नहीं यह पर कि एक भी वह था थे थी जो हो तो इस कर लिए गया आप हम सभी अपने करने साथ मैं",
        "mr": "आहे आहेत आणि नाही हे ही तो ती ते या व च चा ची चे मध्ये असे एक पण होते होता करून साठी मी आम्ही तुम्ही सर्व आपण त्यांना केले जर तर काही",
        "ne": "छ छन् र हो हुन् को मा लाई यो त्यो पनि गर्न गर्नु भएको छैन एक तर मैले हामी तपाईं सबै हरू यस लागि हुन्छ गरेको थियो सक्छ म आफ्नो",
    },
}
_LETTERS = {
    "de": "ß",
    "es": "ñ¿¡",
    "pt": "ãõ",
    "tr": "ğışİ",
    "pl": "łżźśćńąę",
    "cs": "řůěšž",
    "ro": "țșăţş",
    "hu": "őű",
    "vi": "ơưđạảấầậắằặẹẻẽếềểệỉịọỏốồộớờợụủứừửựỳỵỷỹ",
    "ru": "ыэё",
    "uk": "іїєґ",
    "sr": "јљњћђџ",
    "fa": "پچژگ",
    "ur": "ٹڈڑےںھہ",
    "mr": "ळ",
    "da": "æø",
    "no": "æø",
    "sv": "äö",
    "fi": "äö",
}
_LISTS = {script: {code: frozenset(listed.split()) for code, listed in codes.items()} for script, codes in _WORDS.items()}
_FINDERS = {script: re.compile(f"[{signs}]") for script, signs in _SCRIPTS.items()}
LANGUAGES = tuple(sorted({code for codes in _WORDS.values() for code in codes} | set(_ALONE.values())))
"""ISO 639-1 codes that `detect` can give."""


def script_of(text: str) -> str | None:
    """The script most letters belong to; Japanese counts as kana as soon as a tenth of its letters are. None: no letter of a known script."""
    counts = {script: len(finder.findall(text)) for script, finder in _FINDERS.items()}
    if counts["kana"] and counts["kana"] >= 0.1 * (counts["kana"] + counts["han"]):
        counts["kana"] += counts.pop("han")
    best = max(counts, key=lambda script: counts[script])
    return best if counts[best] else None


def detect(text: str) -> str | None:
    """The language of a text.

    Returns:
        An ISO 639-1 code out of `LANGUAGES`; None where the text has no letters, or too few words of a script that languages share.
    """
    script = script_of(text)
    if script is None or script in _ALONE:
        return _ALONE.get(script or "")
    found = [word.lower() for word in words(text) if _FINDERS[script].search(word)]
    if len(found) < 3:
        return None
    scores = {code: _score(found, text.lower(), code, listed) for code, listed in _LISTS[script].items()}
    first, second = sorted(scores.values(), reverse=True)[:2]
    if first < max(0.06, 1.5 / len(found)) or first == second:
        return None
    return max(scores, key=lambda code: scores[code])


def _score(found: list[str], text: str, code: str, listed: frozenset[str]) -> float:
    """Share of words that are everyday words of the language, and half a word for each of its own letters up to a tenth of the words."""
    everyday = sum(word in listed for word in found)
    marks = sum(text.count(letter) for letter in _LETTERS.get(code, ""))
    return (everyday + min(0.5 * marks, 0.15 * len(found) + 0.5)) / len(found)


def plausible(text: str, language: str) -> bool:
    """True: the text is in this language, or too short to tell while its script is the language's own. False: another language, or no letters."""
    found = detect(text)
    if found is not None:
        return found == language
    script = script_of(text)
    return script is not None and language in _LISTS.get(script, {})
