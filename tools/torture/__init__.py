"""Crash consistency of run directories: record file operations, rebuild disks after a crash, resume them."""
