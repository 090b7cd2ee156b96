"""Receives one-way messages in Python, over the way that argv[1] names; and, for pipes, sends them.

    receive.py FOLDER ukshm|socket|zeromq|pipe listen|connect JOB SIZE WARM_MS RUN_MS ADDRESS

FOLDER holds what was installed for it. The payload is read in full: copied out by one assignment of
a slice, which is a memcpy, and its last word checked (bench/README.md has the protocol).
"""

import json
import multiprocessing
import os
import socket
import struct
import sys
import time

FOLDER, WAY, ROLE, _JOB, SIZE, WARM_MS, RUN_MS, ADDRESS = sys.argv[1:9]
SIZE = int(SIZE)
END = 0xFFFFFFFF
sys.path.insert(0, FOLDER)
sys.path.insert(0, os.path.join(os.path.dirname(__file__), '../../../clients/python/src'))


class Inbox:
    """The private copy; `take` answers whether the phase has ended."""

    def __init__(self):
        self.copy = bytearray(SIZE)
        self.expected = 0

    def take(self, payload):
        self.copy[:] = payload
        (word,) = struct.unpack_from('<I', self.copy, SIZE - 4)
        if word == END:
            self.expected = 0
            return True
        if word != self.expected:
            sys.exit(f'expected word {self.expected}, got {word}')
        self.expected += 1
        return False


ANSWER = struct.pack('<I', END)


def say_ready():
    print('ready', flush=True)


def over_ukshm():
    import ukshm

    with ukshm.listen(ADDRESS, arena_bytes=max(4 << 20, 4 * SIZE)) as listener:
        say_ready()
        with listener.accept() as channel:
            inbox = Inbox()
            for _ in range(2):
                while True:
                    message = channel.receive()
                    ended = inbox.take(message.bytes)
                    message.release()
                    if ended:
                        break
                channel.send(ANSWER)


def over_socket():
    server = socket.socket(socket.AF_UNIX)
    server.bind(ADDRESS)
    server.listen(1)
    say_ready()
    peer, _ = server.accept()
    os.unlink(ADDRESS)
    inbox = Inbox()
    buffer = memoryview(bytearray(SIZE))
    for _ in range(2):
        ended = False
        while not ended:
            at = 0
            while at < SIZE:
                got = peer.recv_into(buffer[at:])
                if got == 0:
                    sys.exit('the sender hung up')
                at += got
            ended = inbox.take(buffer)
        peer.sendall(ANSWER)
    # Until the sender hangs up.
    peer.recv(1)
    peer.close()


def over_zeromq():
    import zmq

    pair = zmq.Context().socket(zmq.PAIR)
    pair.bind(f'ipc://{ADDRESS}')
    say_ready()
    inbox = Inbox()
    for _ in range(2):
        while not inbox.take(pair.recv(copy=False).buffer):
            pass
        pair.send(ANSWER)
    sys.stdin.read()


def read_pipe(end):
    inbox = Inbox()
    for _ in range(2):
        while not inbox.take(end.recv_bytes()):
            pass
        end.send_bytes(ANSWER)


def over_pipe():
    """Both ends are Python: nothing else speaks multiprocessing's pipes."""
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.Process(target=read_pipe, args=(theirs,))
    reader.start()
    source = bytearray(SIZE)
    for phase, milliseconds in enumerate((int(WARM_MS), int(RUN_MS))):
        start = time.perf_counter()
        sequence = 0
        while sequence < 4 or time.perf_counter() - start < milliseconds / 1000:
            struct.pack_into('<I', source, SIZE - 4, sequence)
            ours.send_bytes(source)
            sequence += 1
        struct.pack_into('<I', source, SIZE - 4, END)
        ours.send_bytes(source)
        ours.recv_bytes()
    print(json.dumps({'n': sequence, 'seconds': time.perf_counter() - start}))
    reader.join()


{'ukshm': over_ukshm, 'socket': over_socket, 'zeromq': over_zeromq, 'pipe': over_pipe}[WAY]()
