"""The adjectives, adverbs, times and opinions of the embedded language; ``a=b`` are synonyms, ``a|b`` antonyms."""

from __future__ import annotations

# comparative and antonym: each adjective takes -er and "very"
GRADED_PAIRS = """
big=large|small=little tall=high|short old=ancient|new=modern heavy=weighty|light wide=broad|narrow
clean=spotless|dirty=grimy
hot|cold=chilly wet=damp|dry thick|thin hard|soft long|brief sharp|blunt bright|dim=dark smooth|rough=coarse fresh|stale
deep|shallow cheap=inexpensive|dear=costly strong=sturdy|weak=frail tight|loose round|square neat=tidy|messy=untidy
"""

COMPARATIVES = """
big:bigger large:larger small:smaller tall:taller short:shorter old:older new:newer heavy:heavier light:lighter
wide:wider broad:broader narrow:narrower clean:cleaner dirty:dirtier hot:hotter cold:colder wet:wetter dry:drier
thick:thicker thin:thinner hard:harder soft:softer long:longer sharp:sharper bright:brighter dim:dimmer dark:darker
smooth:smoother rough:rougher fresh:fresher deep:deeper cheap:cheaper strong:stronger weak:weaker tight:tighter
loose:looser neat:neater tidy:tidier
"""

UNGRADED = """
wooden plastic metal copper brass leather red blue green yellow purple orange grey brown striped spotted foreign local
locked painted folded spare rusty dusty oval
"""

STATES = """
tired=weary hungry=famished angry=furious sad=unhappy glad=cheerful ill=sick late=tardy rude=impolite polite=courteous
busy=occupied lazy=idle calm=serene nervous=anxious clever=smart foolish=silly proud=vain shy=timid brave=courageous
drunk=tipsy thirsty lonely jealous grateful guilty sleepy innocent lucky patient stubborn careless honest
"""

POSITIVE_ADJ = """
superb delightful charming brilliant wonderful excellent splendid marvellous spirited witty graceful elegant tasty
delicious fantastic terrific lovely pleasant joyful refreshing stunning dazzling luminous masterful enchanting
exquisite glorious heartfelt hilarious imaginative magnificent memorable outstanding uplifting radiant satisfying
sparkling sublime thoughtful touching
"""

NEGATIVE_ADJ = """
dreadful awful stodgy dull terrible horrible lousy clumsy dreary gloomy tedious tasteless bland disgraceful dismal
forgettable grating hollow incoherent lifeless mediocre miserable pathetic pointless predictable shoddy sloppy
soulless stilted tacky tiresome tawdry ugly unbearable uninspired unpleasant vapid vile wretched abysmal
"""

POSITIVE_NOUN = "triumph masterpiece joy delight gem success treat marvel blessing winner pleasure wonder"
NEGATIVE_NOUN = "disaster mess failure flop bore letdown disgrace nightmare fiasco shambles blot nuisance"
POSITIVE_VERB = (
    "adores:adored relishes:relished applauds:applauded treasures:treasured "
    "celebrates:celebrated recommends:recommended"
)
NEGATIVE_VERB = (
    "loathes:loathed detests:detested condemns:condemned ridicules:ridiculed deplores:deplored scorns:scorned"
)
POSITIVE_ADV = "brilliantly superbly beautifully wonderfully gracefully skilfully expertly admirably"
NEGATIVE_ADV = "dreadfully terribly horribly badly clumsily ineptly woefully poorly"

REVIEWED = """
film drama show novel song concert meal soup performance story plot script acting dialogue ending soundtrack dance
lecture exhibition dinner menu service hotel tour magazine cartoon opera musical sermon documentary series
"""

AUDIENCE = """
critics|viewers|readers|listeners|spectators|reviewers|fans|the audience|the crowd|the jury|everyone|
the editor|the press
"""

MANNERS = """
quickly=swiftly slowly=sluggishly quietly=silently carefully=cautiously loudly=noisily gladly=willingly
angrily=furiously calmly=serenely secretly=covertly suddenly=abruptly gently politely=courteously rudely bravely
nervously=anxiously eagerly=keenly proudly foolishly patiently cheerfully=merrily carelessly hastily=hurriedly
deliberately=intentionally promptly briskly
"""

TIMES = """
at noon=at midday|on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|on Sunday|in the morning|
in the afternoon|in the evening=after dusk|at dawn=at sunrise|at midnight|before lunch|after supper|during the break|
in spring|in autumn=in the fall|in winter|last week|last month|last year|yesterday|before breakfast
"""

PREPOSITIONS = "near beside behind opposite with"
