"""Direct TCP and a tunnel, side by side: what a program sees must be the same.

`python -m tests.differential --seed S --seconds N` runs random programs on both and compares; the
tests beside it are the directed cases.

| module     | is                                                                                |
|------------|-----------------------------------------------------------------------------------|
| `program`  | a program: nothing but data, and its listing                                      |
| `generate` | draws a program from a seed                                                       |
| `ways`     | the ways to a peer: direct TCP, a tunnel of a warm session, a tunnel of its own   |
| `far`      | the peers                                                                         |
| `near`     | the sockets of the program, and what their monitors tell                          |
| `run`      | carries a program out on one way, and returns what it saw                         |
| `compare`  | compares what was seen on two ways, with slack for time alone                     |
| `trial`    | one program on both ways; tells a difference from chance, and makes it small      |
| `worker`   | a process that makes one trial after the other                                    |
"""
