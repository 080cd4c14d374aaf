"""imagezmq: cameras that send images to a hub, in both of its patterns."""

import json
import subprocess
import sys

import imagezmq
import numpy

CAMERA = """
import sys, numpy, imagezmq
sender = imagezmq.ImageSender(connect_to=sys.argv[1])
for number in range(20):
    image = numpy.full((48, 64, 3), number, dtype="uint8")
    assert sender.send_image(f"camera {sys.argv[2]}", image) == b"OK"
sender.close()
"""
PUBLISHER = """
import sys, time, numpy, imagezmq
sender = imagezmq.ImageSender(connect_to=sys.argv[1], REQ_REP=False)
for number in range(400):
    sender.send_image("publisher", numpy.zeros((48, 64, 3), dtype="uint8"))
    time.sleep(0.02)
"""

found = {}
hub = imagezmq.ImageHub(open_port="tcp://127.0.0.1:*")
address = hub.zmq_socket.last_endpoint.decode().rstrip("\0")
cameras = [subprocess.Popen([sys.executable, "-c", CAMERA, address, str(n)]) for n in range(3)]
sums = {}
for _ in range(60):
    name, image = hub.recv_image()
    sums[name] = sums.get(name, 0) + int(numpy.mean(image))
    hub.send_reply(b"OK")
found["request and reply"] = str(sorted(sums.items()))
found["cameras"] = str([camera.wait(30) for camera in cameras])

publisher = subprocess.Popen([sys.executable, "-c", PUBLISHER, "tcp://127.0.0.1:5599"])
receiver = imagezmq.ImageHub(open_port="tcp://127.0.0.1:5599", REQ_REP=False)
found["publish and subscribe"] = str([receiver.recv_image()[0] for _ in range(5)])
publisher.kill()
publisher.wait()

with open(sys.argv[1], "w") as results:
    json.dump(found, results)
