"""What type checkers must refuse, each line with its own mistake."""

import zmq

import tunneledzmq
import tunneledzmq.asyncio

sock = tunneledzmq.TunneledContext().socket(zmq.REQ)
twin = tunneledzmq.asyncio.TunneledContext().socket(zmq.REQ)

sock.connect("tcp://a:1", ssh=22)  # mistake
twin.connect("tcp://a:1", ssh=22)  # mistake
sock.connect("tcp://a:1", local=7000)  # mistake
twin.connect("tcp://a:1", local=7000)  # mistake
tunneledzmq.TunneledContext(ssh=22)  # mistake
tunneledzmq.asyncio.TunneledContext(ssh=22)  # mistake
tunneledzmq.SSHOptions("me@bastion", "id")  # mistake
sock.tunnels[0].state = "up"  # mistake
message: str = sock.recv()  # mistake
