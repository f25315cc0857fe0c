"""``python -m framegate``: the command ``framegate``, also where its script is not on the path."""

from framegate.runtime.cli.main import main

raise SystemExit(main())
