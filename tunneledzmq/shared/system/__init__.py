"""What differs by operating system: Linux, macOS and Windows. One module for each concern.

==============  ===================================================================================
module          what it is about, and what differs
==============  ===================================================================================
``account``     who the user is, what files may be read or written by others, where ssh's files are
``descriptors`` listeners that the program hands to a gateway, pairs of sockets
``job``         commands that end with all that they have started
``leg``         the private local leg: a Unix socket, or a TCP port for one process alone
``locks``       locks on directories and files
``owner``       which process a TCP connection belongs to, where a leg needs to know
``polling``     selectors, and what the kernel knows of a socket's other end
``ports``       TCP ports that are ours, whether we listen or not
``process``     how a gateway process starts, and what it is deaf to
``tcp``         how long the kernel waits for a peer that acknowledges nothing
``terminal``    whether there is a terminal, and how one asks there
==============  ===================================================================================

No other module has a name of just one system in it, but for ``gateway/openssh``, which is for
systems with Unix sockets, and the door to an agent (``gateway/auth/door.py``).
"""
