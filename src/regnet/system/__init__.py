"""What every room stands on: errors, files, addresses, threads, the machine, OpenVINO."""
