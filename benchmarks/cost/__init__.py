"""What single parts cost: camera check, monitor, page, threads, faults, drift alarm."""
