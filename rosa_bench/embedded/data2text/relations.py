"""Lists the relations of the triple tasks: what kind of object each takes, and the ways to word it.

The name of a relation is enough to word it: ``runwayLength`` gives "has a runway length of", ``operatedBy`` gives "is
operated by", ``numberOfGates`` gives "has 12 gates". Relations of the seen categories have other wordings beside those;
relations of the unseen categories have no others, so a model can word them from their names alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

# kinds of objects that are names; the first four can have relations of their own
NAME_KINDS = (
    "town",
    "person",
    "country",
    "company",
    "title",
    "venue",
    "coined",
    "university",
    "league",
    "team",
    "party",
)
_LASTING = ("located", "owned", "operated")


# compared by identity: a relation is a key of caches, and hashing its wordings would be slow
@dataclass(frozen=True, eq=False)
class Relation:
    """One predicate: its name, the kind of its object, its verb phrases with ``{o}`` and its whole sentences."""

    name: str
    kind: str
    phrases: tuple[str, ...]
    sentences: tuple[str, ...]


@cache
def words_of(name: str) -> str:
    """Split a camel-case name into lower-case words: ``runwayLength`` is "runway length"."""
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", name).lower()


def relation(name: str, kind: str, phrases: str = "", sentences: str = "", plain: bool = True) -> Relation:
    """Build a relation; wordings are joined by "; ", and ``plain`` adds those that follow from the name."""
    words = words_of(name)
    own_phrases = [phrase for phrase in phrases.split("; ") if phrase]
    own_sentences = [sentence for sentence in sentences.split("; ") if sentence]
    if plain:
        if words.endswith((" by", " in")):
            own_phrases.insert(0, f"{'is' if words.startswith(_LASTING) else 'was'} {words} {{o}}")
        elif words.startswith("number of "):
            own_phrases.insert(0, f"has {{o}} {words.removeprefix('number of ')}")
            own_sentences.insert(0, f"The {words} of {{s}} is {{o}}")
        else:
            article = "an" if words[0] in "aeio" else "a"
            own_phrases.insert(0, f"has {{o}} as {words}" if kind in NAME_KINDS else f"has {article} {words} of {{o}}")
            own_sentences.insert(0, f"The {words} of {{s}} is {{o}}")
            if kind in NAME_KINDS:
                own_sentences.append(f"{{o}} is the {words} of {{s}}")
    return Relation(name, kind, tuple(own_phrases), tuple(own_sentences))


_STONES = "words marble,granite,bronze,copper,limestone,oak"
_TONGUES = "words French,Greek,German,Spanish,Danish,Latin"
_LOCATED = relation("locatedIn", "town", "can be found in {o}; stands in {o}")
_DESIGNED = relation("designedBy", "person", "", "{o} designed {s}; {o} is the architect of {s}")

# category -> how its entities are named ("* Airport" puts a coined word in front) and its relations
SEEN: dict[str, tuple[str, tuple[Relation, ...]]] = {
    "Airport": (
        "* Airport",
        (
            relation("cityServed", "town", "serves the city of {o}; serves {o}", "{o} is served by {s}", False),
            _LOCATED,
            relation("runwayLength", "number 900 4100", "has a runway that is {o} metres long"),
            relation("operatedBy", "company", "is run by {o}", "{o} operates {s}; {o} runs {s}"),
            relation("elevation", "number 4 1500", "lies {o} metres above sea level"),
            relation("runwayName", "runway", "has a runway called {o}"),
            relation("numberOfGates", "number 3 90"),
        ),
    ),
    "Astronaut": (
        "person",
        (
            relation("bornIn", "town", "comes from {o}"),
            relation("birthYear", "number 1930 1985"),
            relation("nationality", "country", "is a citizen of {o}"),
            relation("missionName", "coined", "flew on the {o} mission", "{s} was on the crew of {o}"),
            relation("timeInSpace", "unit 20 900 hours", "spent {o} in space"),
            relation("almaMater", "university", "studied at {o}; graduated from {o}"),
            relation("trainedBy", "person", "", "{o} trained {s}"),
        ),
    ),
    "Building": (
        "* Tower",
        (
            _DESIGNED,
            _LOCATED,
            relation("numberOfFloors", "number 2 90", "is {o} floors high"),
            relation("completedIn", "number 1850 2015", "was finished in {o}"),
            relation("ownedBy", "company", "belongs to {o}", "{o} owns {s}"),
            relation("buildingStyle", "words gothic,baroque,modern,classical,rustic", "is built in the {o} style"),
            relation("height", "unit 20 400 metres", "rises to {o}"),
        ),
    ),
    "City": (
        "town",
        (
            relation("country", "country", "is a town in {o}; lies in {o}"),
            relation("leaderName", "person", "is led by {o}", "{o} is the leader of {s}; {o} leads {s}", False),
            relation("population", "number 900 900000", "is home to {o} people"),
            relation("areaCode", "number 100 990"),
            relation("foundedBy", "person", "", "{o} founded {s}"),
            relation("isPartOf", "country", "is part of {o}; belongs to {o}", "", False),
        ),
    ),
    "ComicsCharacter": (
        "coined",
        (
            relation("createdBy", "person", "is the creation of {o}", "{o} created {s}"),
            relation("firstSeries", "title", "first appeared in {o}"),
            relation("alternativeName", "coined", "is also known as {o}"),
            relation("drawnIn", "number 1930 2015"),
            relation("voiceActor", "person", "is voiced by {o}", "{o} is the voice of {s}"),
            relation("homePlanet", "coined", "comes from {o}"),
        ),
    ),
    "Food": (
        "* pie",
        (
            relation("country", "country", "is a dish from {o}; is eaten in {o}"),
            relation("region", "town", "is typical of {o}"),
            relation("mainIngredient", "words beans,rice,potatoes,lamb,cheese,mushrooms,spinach", "is made with {o}"),
            relation("course", "words starter,dessert,breakfast,lunch,dinner", "is served for {o}"),
            relation("inventedBy", "person", "", "{o} invented {s}"),
            relation("cookingTime", "unit 5 95 minutes", "takes {o} to cook"),
            relation("sideDish", "words salad,bread,pickles,noodles,soup", "comes with {o}"),
        ),
    ),
    "Monument": (
        "* Memorial",
        (
            _LOCATED,
            _DESIGNED,
            relation("material", _STONES, "is made of {o}"),
            relation("builtIn", "number 1750 2010", "dates from {o}"),
            relation("dedicatedTo", "person", "honours {o}; is dedicated to {o}", "", False),
            relation("numberOfSteps", "number 5 300"),
        ),
    ),
    "SportsTeam": (
        "* United",
        (
            relation("homeGround", "venue", "plays at {o}", "{o} is the ground of {s}"),
            relation("league", "league", "plays in the {o}"),
            relation("manager", "person", "is managed by {o}", "{o} manages {s}"),
            relation("foundedIn", "number 1870 1990", "was set up in {o}"),
            relation("numberOfMembers", "number 200 9000"),
            relation("captain", "person", "is led on the pitch by {o}"),
            relation("shirtColour", "words red,blue,green,yellow,black,white", "plays in {o}"),
        ),
    ),
    "University": (
        "* University",
        (
            relation("city", "town", "is in the city of {o}; stands in {o}"),
            relation("numberOfStudents", "number 900 60000", "teaches {o} students"),
            relation("president", "person", "is headed by {o}", "{o} heads {s}"),
            relation("foundedIn", "number 1400 1990", "dates back to {o}"),
            relation("numberOfStaff", "number 90 5000", "employs {o} people"),
            relation("libraryName", "venue", "keeps its books in {o}"),
        ),
    ),
    "WrittenWork": (
        "title",
        (
            relation("writtenBy", "person", "", "{o} wrote {s}; {o} is the author of {s}"),
            relation("publishedBy", "company", "", "{o} published {s}"),
            relation("language", _TONGUES, "is written in {o}"),
            relation("numberOfPages", "number 60 900", "is {o} pages long"),
            relation("genre", "words fantasy,poetry,history,comedy,mystery", "is a work of {o}"),
            relation("publishedIn", "number 1850 2015", "came out in {o}"),
            relation("precededBy", "title", "follows {o}; came after {o}", "", False),
        ),
    ),
}

UNSEEN: dict[str, tuple[str, tuple[Relation, ...]]] = {
    "Artist": (
        "person",
        (
            relation("musicGenre", "words folk,jazz,opera,rock,blues"),
            relation("recordLabel", "company"),
            relation("discoveredBy", "person"),
            relation("signedIn", "number 1960 2015"),
            relation("numberOfAlbums", "number 2 40"),
            relation("debutSong", "title"),
        ),
    ),
    "Athlete": (
        "person",
        (
            relation("playingPosition", "words defender,goalkeeper,striker,winger"),
            relation("shirtNumber", "number 1 99"),
            relation("currentClub", "team"),
            relation("coachedBy", "person"),
            relation("numberOfGoals", "number 1 300"),
            relation("bodyHeight", "unit 160 210 centimetres"),
        ),
    ),
    "CelestialBody": (
        "* Minor",
        (
            relation("observedBy", "person"),
            relation("orbitalPeriod", "unit 20 9000 days"),
            relation("surfaceTemperature", "unit 40 900 kelvins"),
            relation("numberOfMoons", "number 1 70"),
            relation("namedIn", "number 1800 2010"),
            relation("rotationSpeed", "unit 2 400 km/s"),
        ),
    ),
    "MeanOfTransportation": (
        "* Express",
        (
            relation("engineType", "words diesel,steam,electric,hybrid"),
            relation("topSpeed", "unit 60 400 km/h"),
            relation("assembledIn", "town"),
            relation("manufacturedBy", "company"),
            relation("numberOfSeats", "number 2 800"),
            relation("fuelCapacity", "unit 30 900 litres"),
        ),
    ),
    "Politician": (
        "person",
        (
            relation("partyName", "party"),
            relation("electedIn", "number 1950 2020"),
            relation("advisedBy", "person"),
            relation("numberOfVotes", "number 900 90000"),
            relation("formerProfession", "words teacher,lawyer,farmer,doctor,engineer"),
            relation("homeDistrict", "town"),
        ),
    ),
}

# what can be said about the object of another triple
CHAINS: dict[str, tuple[Relation, ...]] = {
    "town": (
        relation("country", "country", "is a town in {o}; lies in {o}"),
        relation("leaderName", "person", "is led by {o}", "{o} leads {s}", False),
        relation("population", "number 900 900000", "is home to {o} people"),
    ),
    "person": (
        relation("nationality", "country", "is a citizen of {o}"),
        relation("residence", "town", "lives in {o}"),
        relation("birthYear", "number 1930 1985"),
    ),
    "country": (
        relation("capital", "town", "", "{o} is the capital city of {s}"),
        relation("leaderName", "person", "is led by {o}", "{o} leads {s}", False),
        relation("currency", "coined", "pays in {o}"),
    ),
    "company": (
        relation("headquarters", "town", "is based in {o}"),
        relation("foundedBy", "person", "", "{o} founded {s}"),
    ),
}
