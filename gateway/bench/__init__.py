"""`gateway bench`: a load generator that reconciles what arrived with what was published.

Three kinds of process, so that none holds up another: the command itself (starts, measures, shows), one
publisher, and as many readers as the streams need. They talk in lines of JSON over pipes.
"""
