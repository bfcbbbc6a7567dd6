"""What is kept: the disk, logs of records in segments, and how they survive power cuts, full disks and damage."""
