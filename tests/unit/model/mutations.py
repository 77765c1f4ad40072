"""Rules of the gateway broken on purpose, one at a time: `python -m tests.unit.model.mutations [RUNS] [WORD]`.

Each is made in a copy of the package, over which up to RUNS schedules are played. Shows by which schedule it was
noticed. A mutation whose text is no longer there is an error: whoever changes the code changes the list, too.

Of 68, some are not noticed by hundreds of schedules. Equivalent, because something else holds the same: the tick
that puts topics where they are in live ids (positions of another era are left out anyway), the end of what a peer
tells (the question comes behind what it asks about). Costing no more than a gap under faults, where schedules
accept one: asking as many peers as are needed, combining answers, pins, clipped holes. Rare: an earlier reply taken
for the last, a tick of another server in the same generation, an old master's return, rings of another history,
what is claimed from the beginning, a range's beginning, an id of another history, new topics that don't wait. The
examples in tests/unit/test_listening.py, test_ring.py, test_merge.py and test_replay.py are about those.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
_FIRST = "from tests.unit.model.schedules import first_failure; print(first_failure({runs}))"


class Mutation(NamedTuple):
    """A rule, and how it is broken."""

    rule: str
    file: str
    old: str
    new: str


LISTENING, RING, TOPIC = "memory/listening.py", "memory/ring.py", "memory/topic.py"
CATCH_UP, RESUME, MERGE, REPLAY = "memory/catch_up.py", "memory/resume.py", "memory/merge.py", "memory/replay.py"
PLACE, ENTRY, DURABLES = "memory/place.py", "memory/entry.py", "memory/durables.py"
DELIVERY, JOINT_IDS = "fanout/delivery.py", "fanout/joint_ids.py"
PEERS, COVERAGE = "broker/peers.py", "broker/coverage.py"

MUTATIONS = [
    Mutation(
        "an id names all topics that had a message",
        LISTENING,
        "loud = [topic for topic in topics if topic.last is not None and topic.last[:2] == era]",
        "loud = [topic for topic in topics if topic.last is not None and topic.last[:2] == era][:1]",
    ),
    Mutation(
        "live ids name the stream's other topics",
        JOINT_IDS,
        "if topic in at and topic not in heard",
        "if False",
    ),
    Mutation(
        "so do those of streams that need care",
        JOINT_IDS,
        "at = {topic: self._at[topic] for topic in topics if topic in self._at}",
        "at: dict[Topic, Position] = {}",
    ),
    Mutation("a tick puts all topics where it is, in live ids", JOINT_IDS, "self._at.clear()", "pass"),
    Mutation(
        "messages through several topics move all of them",
        JOINT_IDS,
        "{topic: format_part(topic.key, at_) for topic, at_ in zip(run.topics, positions, strict=True) if at_}",
        "{topic: format_part(topic.key, at_) for topic, at_ in [(run.topics[0], positions[0])] if at_}",
    ),
    Mutation("a pattern's events come in order", DELIVERY, "if topic.is_pattern is not patterns:", "if patterns:"),
    Mutation(
        "a client of several topics gets an event once",
        DELIVERY,
        "recipients = members.difference(*[other.joint.get(encoding, ()) for other in seen])",
        "recipients = members",
    ),
    Mutation("copies of one PUBLISH count once", LISTENING, "if self._copies:", "if False:"),
    Mutation(
        "a message counts on every topic that matches",
        LISTENING,
        "return tuple(topic for each in keys if (topic := topics.get(each)) is not None and topic.heard)",
        "return tuple(topic for each in [key] if (topic := topics.get(each)) is not None and topic.heard)",
    ),
    Mutation(
        "only the last reply confirms a topic",
        LISTENING,
        "if topic is not None and last_reply and not topic.heard:",
        "if topic is not None and not topic.heard:",
    ),
    Mutation(
        "a tick counts only from the server that is listened to",
        LISTENING,
        "if tick.identity != self._identity:",
        "if False:",
    ),
    Mutation(
        "another generation ends the connection (ticks)",
        LISTENING,
        "elif tick.generation != self.era[0]:",
        "elif False:",
    ),
    Mutation(
        "another generation ends the connection (messages)",
        LISTENING,
        "if generation == self.era[0]:",
        "if True:",
    ),
    Mutation(
        "a worker doesn't return to an old master", LISTENING, "if tick.generation in self._ended:", "if False:"
    ),
    Mutation(
        "rings of another history are forgotten",
        LISTENING,
        "if self._past and self._past != tick.generation and self._past not in tick.lineage:",
        "if False:",
    ),
    Mutation(
        "a lost connection leaves a hole",
        LISTENING,
        "elif topic.lost_at is not None and topic.lost_at < now:",
        "elif False:",
    ),
    Mutation(
        "a hole begins where the connection was lost",
        LISTENING,
        "Hole(topic.lost_at, now, LOST)",
        "Hole(now, now, LOST)",
    ),
    Mutation(
        "a hole ends at the tick that opens the topic",
        LISTENING,
        "Hole(topic.lost_at, now, LOST)",
        "Hole(topic.lost_at, topic.lost_at._replace(count=topic.lost_at[3] + 1), LOST)",
    ),
    Mutation(
        "a hole is noted where the topic was lost first",
        LISTENING,
        "            if topic.state is State.OPEN:\n                assert",
        "            if self.era is not None:\n                assert",
    ),
    Mutation(
        "a topic is open after a tick only",
        LISTENING,
        "            topic.state = State.CONFIRMED\n",
        "            topic.state = State.OPEN if self.era else State.CONFIRMED\n"
        "            if self.era and topic.ring.since is None:\n"
        "                topic.ring.begin(topic.position(self.era))\n",
    ),
    Mutation(
        "rejected messages count",
        "../tests/unit/model/worker.py",
        "positions = tuple([self.listening.count(topic, number) for topic in topics])\n"
        "        if event is None or not topics:\n"
        "            return None\n",
        "if event is None or not topics:\n"
        "            return None\n"
        "        positions = tuple([self.listening.count(topic, number) for topic in topics])\n",
    ),
    Mutation(
        "a plain message counts from the newest durable one",
        TOPIC,
        "self.last = Position(*era, last[2], last[3] + 1)",
        "self.last = Position(*era, 0, last[3] + 1)",
    ),
    Mutation(
        "a durable message begins a new count",
        TOPIC,
        "self.last = Position(*era, durable, 0)",
        "self.last = Position(*era, durable, last[3] if last else 0)",
    ),
    Mutation(
        "a ring without the beginning has a hole there",
        RING,
        "[Hole(start, self.since, UNKNOWN)] if start < self.since else []",
        "[]",
    ),
    Mutation("what is evicted isn't known any more", RING, "self.since = max(self.since, oldest.end)", "pass"),
    Mutation("what is learned goes in front only where it fits", RING, "elif end == self.since and", "elif"),
    Mutation(
        "a reported hole isn't asked about again",
        RING,
        "isinstance(kept, Hole) and kept.askable",
        "isinstance(kept, Hole)",
    ),
    Mutation(
        "what is learned replaces its part of the hole only", RING, "[*kept, *before, *found, *behind]", "[*found]"
    ),
    Mutation(
        "what nobody knows further back isn't claimed",
        RING,
        "start, found = found[0].end, list(clip(found[1:], found[0].end, end))",
        "pass",
    ),
    Mutation(
        "rings are pinned while somebody waits",
        RING,
        "if self.pins else (limits.events, limits.bytes)",
        "if False else (limits.events, limits.bytes)",
    ),
    Mutation(
        "a range is open at its beginning",
        ENTRY,
        "if start < each.position <= end:",
        "if start <= each.position <= end:",
    ),
    Mutation(
        "a range is closed at its end", ENTRY, "if start < each.position <= end:", "if start < each.position < end:"
    ),
    Mutation(
        "holes are clipped",
        ENTRY,
        "yield each._replace(position=max(each.position, start), end=min(each.end, end))",
        "yield each",
    ),
    Mutation(
        "a hole comes after the event at its beginning",
        ENTRY,
        "return each.position, isinstance(each, Hole)",
        "return each.position, isinstance(each, Entry)",
    ),
    Mutation(
        "a peer's holes are not known",
        MERGE,
        "ranges.append((begin, each.position))\n                begin = max(begin, each.end)",
        "pass",
    ),
    Mutation("what no peer knows is a hole", MERGE, "    found += unknown_parts(start, end, ranges)\n", ""),
    Mutation(
        "several answers are combined",
        MERGE,
        "for begin, to, kept in answers:",
        "for begin, to, kept in list(answers)[:1]:",
    ),
    Mutation(
        "as many peers are asked as are needed",
        COVERAGE,
        "            together += own\n",
        "            together += own\n            break\n",
    ),
    Mutation("a peer tells only what it has heard", PEERS, "min(question.end, topic.position(era))", "question.end"),
    Mutation(
        "a peer tells only from where its ring begins",
        PEERS,
        "max(question.start, topic.ring.since), min",
        "question.start, min",
    ),
    Mutation(
        "what Redis keeps in a hole is given",
        DURABLES,
        "events.update({entry.position: entry for entry in entries})",
        "pass",
    ),
    Mutation(
        "only durable topics can be complete without the workers",
        DURABLES,
        "if not (durable_only and complete):",
        "if not complete:",
    ),
    Mutation("an incomplete chain is a gap", DURABLES, "if not (durable_only and complete):", "if not durable_only:"),
    Mutation(
        "a client that is ahead waits",
        RESUME,
        "ahead = any(start[topic] > here[topic] for topic in topics)",
        "ahead = False",
    ),
    Mutation(
        "an id of another history is no place",
        RESUME,
        "known = place.generation == listening.era[0] or place.generation in listening.lineage",
        "known = True",
    ),
    Mutation("the lineage is known", RESUME, "or place.generation in listening.lineage", ""),
    Mutation(
        "new topics wait for the tick after the id's",
        RESUME,
        "too_early = bool(resume.new) and listening.era <= (place.generation, place.tick)",
        "too_early = False",
    ),
    Mutation(
        "new topics begin now",
        RESUME,
        "place.at(topic) if topic not in resume.new else here[topic]",
        "place.at(topic)",
    ),
    Mutation("who was elsewhere is let in after a tick only", RESUME, "    if not verified:\n", "    if False:\n"),
    Mutation("an id without a position gets a gap", RESUME, "    if place.generation == 0:\n", "    if False:\n"),
    Mutation(
        "an uncounted topic can't be compared",
        RESUME,
        "return Begin({}, uncounted)",
        "return Begin({}, {})",
    ),
    Mutation(
        "a publisher's id is looked for after a tick", CATCH_UP, "if not self.verified and may_search():", "if False:"
    ),
    Mutation(
        "a publisher's id is looked for elsewhere",
        CATCH_UP,
        "if self.verified and not self._searched and holes:",
        "if False:",
    ),
    Mutation(
        "a publisher's id that is not found is a gap",
        CATCH_UP,
        '            return self._only_gaps("unknown_id")',
        "            return []",
    ),
    Mutation(
        "a publisher's id found is where the client is",
        CATCH_UP,
        "{topic: found[0]}, {}, topics)",
        "{topic: here[topic]}, {}, topics)",
    ),
    Mutation(
        "what is missing is asked for",
        CATCH_UP,
        "            if self.tries < _TRIES:\n"
        "                widened = [(topic, self._widened(listening, topic, hole)) for topic, hole in holes]\n"
        "                return Find(widened, self.tries < _TRIES_WITH_OTHERS)\n",
        "",
    ),
    Mutation(
        "what others know of a part is not taken for all",
        CATCH_UP,
        "unknown = [each._replace(kind=hole.kind) for each in merged if isinstance(each, Hole)]",
        "unknown: list[Hole] = []",
    ),
    Mutation("reported reasons stay", CATCH_UP, "*clip(reasons, hole.position, hole.end)", ""),
    Mutation(
        "replays are merged along the ticks",
        REPLAY,
        "    return -generation, -tick\n",
        "    return 0, 0\n",
    ),
    Mutation(
        "an event of two topics is replayed once",
        REPLAY,
        "if isinstance(each, Hole) or first.of(each.channel) is topic",
        "if True",
    ),
    Mutation(
        "a new topic doesn't deliver for one the client had",
        REPLAY,
        "key=lambda topic: (topic not in returning, *_by_name(topic))",
        "key=_by_name",
    ),
    Mutation(
        "a replayed id names the other topics, too",
        REPLAY,
        "if at[:2] == era and at[2:] != (0, 0) and",
        "if False and",
    ),
    Mutation(
        "an id in a replay moves its topic", REPLAY, "            self._parts[key] = format_part(key, position)\n", ""
    ),
    Mutation(
        "a gap is reported",
        REPLAY,
        "yield Replayed(topic.name, gap(topic.name, each.kind, since), None)",
        "pass",
    ),
    Mutation(
        "an early event's id is one of this version",
        REPLAY,
        "if position.generation < FIRST_GENERATION:",
        "if not position.tick:",
    ),
    Mutation("an id's numbers count from its tick", PLACE, "tick + offset if offset else 0", "offset"),
    Mutation("an id says how many came", PLACE, "int(named[3], 16))", "0)"),
    Mutation(
        "a position behind a publisher's id is read",
        PLACE,
        'own, tilde, rest = text.rpartition("~")',
        'own, tilde, rest = "", "", text',
    ),
]


def noticed(mutation: Mutation, runs: int) -> str:
    """By which schedule it is noticed."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "gateway", copy / "gateway", ignore=ignored)
        shutil.copytree(ROOT / "tests" / "unit" / "model", copy / "tests" / "unit" / "model", ignore=ignored)
        for package in ("tests", "tests/unit"):
            (copy / package / "__init__.py").touch()
        path = copy / "gateway" / mutation.file
        text = path.read_text()
        if mutation.old not in text:
            raise SystemExit(f"{mutation.rule}: {mutation.file} no longer has {mutation.old!r}")
        path.write_text(text.replace(mutation.old, mutation.new))
        done = subprocess.run(
            [sys.executable, "-c", _FIRST.format(runs=runs)], cwd=copy, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [mutation for mutation in MUTATIONS if word in mutation.rule]
    missed = 0
    for mutation in chosen:
        result = noticed(mutation, runs)
        missed += result == "None"
        print(f"{result:>6}  {mutation.rule}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")


if __name__ == "__main__":
    main()
