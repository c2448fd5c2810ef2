"""The words of the synthetic grammar and what they mean: kinds, implications, opposites, twins that differ by case."""

from __future__ import annotations

# a kind of person: the professions of that kind
KINDS = {
    "doctor": "surgeon dentist nurse",
    "musician": "violinist pianist drummer singer",
    "artist": "painter sculptor dancer poet",
    "athlete": "runner swimmer boxer skier",
    "scientist": "chemist physicist biologist",
    "official": "senator mayor judge minister",
    "person": "baker farmer lawyer teacher student tailor pilot sailor banker cook hunter mason guard clerk author "
    "actor manager driver waiter barber tourist guest",
}
KIND_OF = {noun: kind for kind, nouns in KINDS.items() for noun in nouns.split()}
# Baker, Cook, Hunter and Mason are professions in lower case; Grace, Hope, Faith, Joy, Art and Amber are things
NAMES = [
    "Anna",
    "Omar",
    "Lucia",
    "Pedro",
    "Yuki",
    "Ivan",
    "Noah",
    "Priya",
    "Clara",
    "Hugo",
    "Leila",
    "Marco",
    "Nadia",
    "Oscar",
    "Petra",
    "Simon",
    "Baker",
    "Cook",
    "Hunter",
    "Mason",
    "Grace",
    "Hope",
    "Faith",
    "Joy",
    "Art",
    "Amber",
]
# objects without an article that mean something else in the other case
TWINS = {upper: upper.lower() for upper in ["US", "IT", "AID", "CARE", "Grace", "Hope", "Faith", "Joy", "Art", "Amber"]}
TWIN_OF = TWINS | {lower: upper for upper, lower in TWINS.items()}
TWIN_VERBS = ["find", "lose", "love", "hate", "miss", "need", "want", "praise", "criticize", "trust"]

PAST = dict(
    pair.split("/")
    for pair in [
        "call/called",
        "help/helped",
        "thank/thanked",
        "visit/visited",
        "follow/followed",
        "advise/advised",
        "admire/admired",
        "warn/warned",
        "interrupt/interrupted",
        "support/supported",
        "blame/blamed",
        "greet/greeted",
        "watch/watched",
        "study/studied",
        "miss/missed",
        "need/needed",
        "want/wanted",
        "contact/contacted",
        "phone/phoned",
        "email/emailed",
        "touch/touched",
        "hug/hugged",
        "tap/tapped",
        "notice/noticed",
        "spot/spotted",
        "praise/praised",
        "applaud/applauded",
        "criticize/criticized",
        "scold/scolded",
        "love/loved",
        "adore/adored",
        "hate/hated",
        "trust/trusted",
        "distrust/distrusted",
        "obey/obeyed",
        "disobey/disobeyed",
        "hire/hired",
        "dismiss/dismissed",
        "encourage/encouraged",
        "discourage/discouraged",
        "please/pleased",
        "annoy/annoyed",
        "find/found",
        "lose/lost",
        "believe/believed",
        "fear/feared",
        "doubt/doubted",
        "suspect/suspected",
        "sleep/slept",
        "work/worked",
        "wait/waited",
        "sing/sang",
        "cough/coughed",
        "travel/traveled",
        "speak/spoke",
        "whisper/whispered",
        "shout/shouted",
        "move/moved",
        "run/ran",
        "jump/jumped",
        "arrive/arrived",
        "leave/left",
        "laugh/laughed",
        "cry/cried",
        "smile/smiled",
        "frown/frowned",
    ]
)
BASE = {past: base for base, past in PAST.items()}
INTRANSITIVE = [
    "sleep",
    "work",
    "wait",
    "sing",
    "cough",
    "travel",
    "speak",
    "whisper",
    "shout",
    "move",
    "run",
    "jump",
    "arrive",
    "leave",
    "laugh",
    "cry",
    "smile",
    "frown",
]
CLAUSAL = ["believe", "fear", "doubt", "suspect"]  # also take a clause, and do not say that it is true
TRANSITIVE = [verb for verb in PAST if verb not in {*INTRANSITIVE, *CLAUSAL}]
IMPLIES = {
    "phone": "contact", "email": "contact", "hug": "touch", "tap": "touch", "spot": "notice", "applaud": "praise",
    "scold": "criticize", "adore": "love", "whisper": "speak", "shout": "speak", "run": "move", "jump": "move",
}  # fmt: skip
_OPPOSITES = (
    "praise/criticize love/hate trust/distrust obey/disobey hire/dismiss encourage/discourage please/annoy find/lose "
    "arrive/leave laugh/cry smile/frown "
    "happy/sad rich/poor young/old tall/short calm/angry healthy/sick quiet/loud brave/timid"
)
OPPOSITE = {a: b for pair in _OPPOSITES.split() for a, b in (pair.split("/"), reversed(pair.split("/")))}
ADJECTIVES = [
    "happy",
    "sad",
    "rich",
    "poor",
    "young",
    "old",
    "tall",
    "short",
    "calm",
    "angry",
    "healthy",
    "sick",
    "quiet",
    "loud",
    "brave",
    "timid",
]

PLACES = (
    "in the garden", "in the library", "in the kitchen", "in the park", "at the station", "at the market",
    "near the bank", "near the museum", "behind the hotel", "on the bridge", "on the train", "at the harbor",
)  # fmt: skip
TIMES = ("yesterday", "last week", "before dawn", "at noon", "on Monday", "in the evening")
BESIDE = ("near", "behind", "beside")

# what opens a sentence and says that it is true; leaves it open; denies it
SURELY = ("indeed", "suddenly", "fortunately", "clearly", "of course")
PERHAPS = ("perhaps", "maybe", "probably", "possibly")
FALSELY = ("it is false that", "it is not true that", "it is a lie that")
# a person's attitude to a clause, likewise
KNEW = ("knew that", "realized that", "learned that", "remembered that")
SAID = ("said that", "hoped that", "guessed that", "claimed that")
PRETENDED = ("pretended that", "wrongly believed that", "falsely claimed that")
# what joins two clauses that are both true; that are both open
BECAUSE = ("because", "although", "after", "while")
IF = ("if", "unless")
