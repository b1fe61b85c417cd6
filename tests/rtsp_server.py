"""A small RTSP server for tests: one H.264 stream over TCP, in FFmpeg's own RTP packets."""

import re
import socket
import threading
from pathlib import Path
from typing import Any

import av

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
    "a=control:track\r\n"
)


class _Packets:
    """A file that keeps each packet written to it."""

    def __init__(self) -> None:
        self.found: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.found.append(bytes(data))
        return len(data)


def rtp_packets(clip: Path) -> list[bytes]:
    """Return the RTP and RTCP packets of a clip in H.264 whose stream has its own headers."""
    file: Any = _Packets()
    with av.open(str(clip)) as source, av.open(file, "w", format="rtp") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    return file.found


class RtspServer:
    """Answers one client at a time on a free port; `credentials` are user:password in base64."""

    def __init__(self, packets: list[bytes], *, endless: bool = False) -> None:
        self._packets = packets
        self._endless = endless
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/camera"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        buffer = b""
        while data := client.recv(65536):
            buffer += data
            while b"\r\n\r\n" in buffer:
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                if not self._answer(client, head.decode()):
                    return

    def _answer(self, client: socket.socket, request: str) -> bool:
        method = request.split()[0]
        self.asked.append(method)
        number = re.search(r"CSeq: (\d+)", request)
        more, body = "Session: 1\r\n", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            more, body = "Content-Type: application/sdp\r\n", _SDP
        elif method == "SETUP":
            more += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        head = f"RTSP/1.0 200 OK\r\nCSeq: {number and number[1]}\r\n{more}"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        if method == "PLAY":
            self._play(client)
        return method not in ("PLAY", "TEARDOWN")

    def _play(self, client: socket.socket) -> None:
        for packet in self._packets:
            channel = 1 if 200 <= packet[1] <= 204 else 0  # RTCP beside RTP
            client.sendall(b"$" + bytes([channel]) + len(packet).to_bytes(2, "big") + packet)
