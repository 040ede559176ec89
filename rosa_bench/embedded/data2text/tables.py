"""Lists the kinds of tables behind the rows of the DART-like task that come from tables."""

from __future__ import annotations

from typing import NamedTuple

from rosa_bench.embedded.data2text.relations import Relation


class Table(NamedTuple):
    """A kind of table: its title with ``*`` for a name, its key column, the kind of the keys, and the columns."""

    title: str
    key_column: str
    key_kind: str
    columns: tuple[Relation, ...]


def _column(name: str, kind: str, phrases: str, sentences: str = "") -> Relation:
    return Relation(name, kind, tuple(phrases.split("; ")), tuple(part for part in sentences.split("; ") if part))


TABLES = (
    Table(
        "* Grand Prix",
        "DRIVER",
        "person",
        (
            _column("TEAM", "company", "drove for {o}; raced for {o}", "{o} entered {s}"),
            _column("LAPS", "number 10 90", "completed {o} laps; drove {o} laps", "The number of laps of {s} was {o}"),
            _column("POINTS", "number 1 30", "scored {o} points; won {o} points"),
            _column("GRID", "number 1 26", "started from grid place {o}; set off from place {o}"),
            _column("BEST_TIME", "unit 60 120 seconds", "had a best time of {o}", "The best time of {s} was {o}"),
        ),
    ),
    Table(
        "* Council Election",
        "CANDIDATE",
        "person",
        (
            _column("PARTY", "party", "stood for the {o}; was the candidate of the {o}"),
            _column("DISTRICT", "town", "ran in {o}; stood in {o}"),
            _column("VOTES", "number 200 90000", "received {o} votes; won {o} votes", "{o} people voted for {s}"),
            _column("OCCUPATION", "words teacher,lawyer,farmer,doctor,baker", "worked as a {o}; was a {o}"),
        ),
    ),
    Table(
        "Films of *",
        "FILM",
        "title",
        (
            _column("DIRECTOR", "person", "was directed by {o}", "{o} directed {s}; The director of {s} was {o}"),
            _column("RELEASE_YEAR", "number 1930 2018", "was released in {o}; came out in {o}"),
            _column("RUNNING_TIME", "unit 70 190 minutes", "runs for {o}; lasts {o}", "The running time of {s} is {o}"),
            _column("STUDIO", "company", "was made by {o}", "{o} made {s}"),
            _column("LEADING_ROLE", "person", "stars {o}", "{o} plays the leading role in {s}"),
        ),
    ),
    Table(
        "Stations of the * Line",
        "STATION",
        "town",
        (
            _column("PLATFORMS", "number 2 14", "has {o} platforms", "The number of platforms in {s} is {o}"),
            _column("OPENED", "number 1840 2010", "was opened in {o}; has been open since {o}"),
            _column("ZONE", "number 1 9", "is in zone {o}; lies in zone {o}"),
            _column("DISTANCE", "unit 1 90 kilometres", "is {o} down the line; lies {o} down the line"),
        ),
    ),
    Table(
        "* Rowing Cup",
        "CLUB",
        "team",
        (
            _column("WINS", "number 1 40", "won {o} races; took {o} wins", "The number of wins of {s} was {o}"),
            _column("RANK", "number 1 20", "finished in place {o}; ended in place {o}"),
            _column("COACH", "person", "was coached by {o}", "{o} coached {s}; The coach of {s} was {o}"),
            _column("HOME_TOWN", "town", "came from {o}; was based in {o}"),
        ),
    ),
    Table(
        "Songs of *",
        "SONG",
        "title",
        (
            _column("SINGER", "person", "was sung by {o}", "{o} sang {s}; The singer of {s} was {o}"),
            _column("CHART_PEAK", "number 1 100", "reached number {o} in the charts; peaked at number {o}"),
            _column("LABEL", "company", "appeared on {o}", "{o} released {s}"),
            _column("YEAR", "number 1955 2018", "came out in {o}; was recorded in {o}"),
        ),
    ),
    Table(
        "Towers in *",
        "TOWER",
        "venue",
        (
            _column("STOREYS", "number 5 90", "has {o} storeys", "The number of storeys of {s} is {o}"),
            _column("HEIGHT", "unit 30 400 metres", "is {o} tall; rises to {o}", "The height of {s} is {o}"),
            _column("BUILDER", "company", "was put up by {o}", "{o} put up {s}; The builder of {s} was {o}"),
            _column("STREET", "coined", "stands in {o} Street; is in {o} Street"),
        ),
    ),
    Table(
        "Schools of *",
        "SCHOOL",
        "university",
        (
            _column(
                "MASCOT", "words bears,eagles,lions,wolves,tigers", "has the {o} as mascot", "The {o} stand for {s}"
            ),
            _column("LOCATION", "town", "is in {o}; is located in {o}"),
            _column("ENROLMENT", "number 90 9000", "has {o} pupils; teaches {o} pupils", "The enrolment of {s} is {o}"),
            _column("JOINED", "number 1900 2015", "joined in {o}; became a member in {o}"),
        ),
    ),
)
