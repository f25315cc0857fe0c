"""An MP4 file that plays whenever the process ends.

While it is written it is a *fragmented* MP4: each `Mp4File.add` appends samples together with their own index, so that
a file whose writer was killed, or whose disk is full, plays up to the last one. At a normal end it becomes a plain MP4,
which every player opens and in which one can jump: the index of the whole is appended, and then 16 bytes at the
beginning turn everything between into one box of data:

    ftyp  free  moov  moof mdat  moof mdat  ...               while it is written
    ftyp  mdat(                              ...        )  moov   finished

FFmpeg (``-movflags hybrid_fragmented``) and OBS Studio end their recordings in the same way.

FFmpeg refuses a file that breaks off within a ``moof`` or a ``moov``. So such a box is written as ``free``, which every
reader skips, and gets its type when it is complete: four bytes that lie within one page of memory, so that a process is
killed before or after them.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

from framegate.runtime.sinks import mp4_boxes
from framegate.runtime.sinks.record_file import RecordFile

_RESERVED = struct.pack(">I4s8x", 16, b"free")  # where the head of a box with a 64-bit size fits later
_ALIGNMENT = 4


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
        if self._description is None:
            tables = mp4_boxes.sample_tables(self._step, (), (), ())
            self._commit(mp4_boxes.movie(self._size, clip.description, 0, tables, fragmented=True))
            self._description = clip.description
        begins = self.frames * self._step
        head = mp4_boxes.movie_fragment(len(self._chunks) + 1, begins, self._step, clip)
        begin = self._file.size
        self._commit(head, clip.data)
        self._chunks.append((begin + len(head) + 8, len(clip.sizes)))
        self._sync.extend(self.frames + k for k in clip.sync)
        self._sizes.extend(clip.sizes)

    def _commit(self, index: bytes, data: bytes | None = None) -> None:
        """Append a box, and the data that it describes; no reader sees it before it is complete."""
        begin, kind = self._file.size, index[4:8]
        padding = bytes(-(len(index) + len(data or b"")) % _ALIGNMENT)
        behind = mp4_boxes.box(b"free", padding) if data is None else mp4_boxes.box(b"mdat", data, padding)
        self._file.append(index[:4] + b"free" + index[8:] + behind, self.kept)
        self._file.overwrite(begin + 4, kind)

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
            if self._description is not None and self.frames:
                data_ends = self._file.size
                tables = mp4_boxes.sample_tables(self._step, self._sizes, self._sync, self._chunks)
                duration = self.frames * self._step
                index = mp4_boxes.movie(self._size, self._description, duration, tables, fragmented=False)
                self._commit(index)
                head = struct.pack(">I4sQ", 1, b"mdat", data_ends - self._data_begins)
                self._file.overwrite(self._data_begins, head)
        finally:
            self._file.close()
