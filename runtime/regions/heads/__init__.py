"""What detectors give, and how it becomes boxes: one module for each common head, and the table of them.

The arithmetic of each is that of the named project's own code. Libraries that decode heads (supervision, ultralytics)
bring PyTorch or a second OpenCV with them and are not for a vehicle; suppression of overlapping boxes is cv2's.
"""

from framegate.runtime.regions.heads.base import Decoded, Head, Outputs
from framegate.runtime.regions.heads.table import HEADS, choose_head, head_named

__all__ = ["HEADS", "Decoded", "Head", "Outputs", "choose_head", "head_named"]
