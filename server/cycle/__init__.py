"""One cycle of a run, as stages: collect -> context -> search -> distil -> judge -> promote -> measure.

Each stage is a function from the run's parts (`run.Run`), the state between cycles (`state.State`) and what the stages
before gave, to a typed outcome that `phases.Phases` keeps on disk. `server.CycleServer` puts them in a row.
"""
