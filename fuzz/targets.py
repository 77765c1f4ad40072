"""All targets that need a worker."""

from fuzz.edge import ThroughNginx
from fuzz.internal import InternalMessages
from fuzz.keys import KeysInRedis
from fuzz.names import NamesAndPatterns
from fuzz.published import PublishedPayloads
from fuzz.raw import RawRequests
from fuzz.target import Target
from fuzz.tokens import Tokens
from fuzz.well_formed import WellFormedRequests

TARGETS: list[type[Target]] = [
    RawRequests,
    WellFormedRequests,
    ThroughNginx,
    PublishedPayloads,
    NamesAndPatterns,
    InternalMessages,
    KeysInRedis,
    Tokens,
]
