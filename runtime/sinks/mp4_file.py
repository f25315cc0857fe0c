"""An MP4 file that plays whenever the process ends.

While it is written it is a *fragmented* MP4: each `Mp4File.add` appends samples together with their own index, so that
a file whose writer was killed, or whose disk is full, plays up to the last one. At a normal end it becomes a plain MP4,
which every player opens and in which one can jump: the index of the whole is appended, and then 16 bytes at the
beginning turn everything between into one box of data:

    ftyp  free  moov  moof mdat  moof mdat  ...               while it is written
    ftyp  mdat(                              ...        )  moov   finished

FFmpeg (``-movflags hybrid_fragmented``) and OBS Studio end their recordings in the same way.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

from framegate.runtime.sinks import mp4_boxes
from framegate.runtime.sinks.record_file import RecordFile

_RESERVED = struct.pack(">I4s8x", 16, b"free")  # where the head of a box with a 64-bit size fits later


class Mp4File:
    """One video track of frames that are shown equally long.

    Args:
        path: File to create; an existing one is replaced.
        fps: Frames per second.
        size: Width and height in pixels.

    Attributes:
        frames: Frames in the file.

    Raises:
        SinkError: It cannot be created, or not written.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._file = RecordFile(path, "video")
        self._step = max(1, round(mp4_boxes.TIMESCALE / fps))
        self._size = size
        self._description: bytes | None = None
        self._sizes = array("I")
        self._sync = array("I")
        self._chunks: list[tuple[int, int]] = []
        self._data_begins = len(mp4_boxes.file_type())
        self._file.append(mp4_boxes.file_type() + _RESERVED, "nothing was recorded")

    @property
    def frames(self) -> int:
        """Frames that can be played."""
        return len(self._sizes)

    def add(self, clip: mp4_boxes.Clip) -> None:
        """Append frames, the first of which is a key frame.

        Raises:
            SinkError: They cannot be written; those before them are kept.
        """
        record = b""
        if self._description is None:
            tables = mp4_boxes.sample_tables(self._step, (), (), ())
            record = mp4_boxes.movie(self._size, clip.description, 0, tables, fragmented=True)
        begins = self.frames * self._step
        record += mp4_boxes.fragment(len(self._chunks) + 1, begins, self._step, clip)
        self._file.append(record, self.kept)
        self._description = self._description or clip.description
        self._chunks.append((self._file.size - len(clip.data), len(clip.sizes)))
        self._sync.extend(self.frames + k for k in clip.sync)
        self._sizes.extend(clip.sizes)

    @property
    def kept(self) -> str:
        """What of the video stays if nothing can be added, for messages."""
        return f"its first {self.frames} frames are kept" if self.frames else "nothing was recorded"

    def close(self) -> None:
        """Make it a plain MP4; can be called twice. If that is not possible it stays a fragmented one.

        Raises:
            SinkError: It could not be made a plain one.
        """
        if self._file.closed:
            return
        try:
            if self._description is not None:
                data_ends = self._file.size
                tables = mp4_boxes.sample_tables(self._step, self._sizes, self._sync, self._chunks)
                duration = self.frames * self._step
                index = mp4_boxes.movie(self._size, self._description, duration, tables, fragmented=False)
                self._file.append(index, f"{self.kept}, without an index")
                head = struct.pack(">I4sQ", 1, b"mdat", data_ends - self._data_begins)
                self._file.overwrite(self._data_begins, head)
        finally:
            self._file.close()
