"""An evaluation from plan to results."""
