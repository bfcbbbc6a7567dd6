"""The code that keeps what is acknowledged, whose tests are tested themselves: every branch of it runs under them (coverage_run.py), and they notice what is
changed in it (mutants_run.py). docs/reliability.md has the figures."""

PYTHON = (
    "edge/storage/log.py", "edge/storage/segment.py", "edge/storage/opening.py", "edge/storage/reader.py", "edge/storage/reading.py", "edge/storage/writer.py", "edge/storage/mending.py", "edge/storage/whole.py", "edge/storage/notices.py", "edge/storage/records.py",
    "edge/recovery.py", "edge/checkpoint.py", "edge/outbox.py", "edge/codec/receiver.py", "edge/codec/intervals.py", "gateway/receive.py",
)
CYTHON = ("edge/storage/_record.pyx", "edge/storage/_crc32c.pyx", "edge/storage/_pages.pyx")

TESTS = (                            # the quick ones first: a mutant is tried on them in this order
    "tests/edge/test_notices_alone.py", "tests/log/test_segment.py", "tests/log/test_whole.py", "tests/edge/test_record_kinds.py", "tests/log/test_log_edges.py", "tests/log/test_log_bounds.py",
    "tests/log/test_log_sizes.py", "tests/log/test_reading.py", "tests/log/test_reading_edges.py", "tests/log/test_file_edges.py", "tests/log/test_checkpoint_edges.py", "tests/log/test_corruption.py",
    "tests/log/test_quota.py", "tests/log/test_io_errors.py", "tests/log/test_checkpoint.py", "tests/log/test_mending_told.py", "tests/log/test_mending_edges.py", "tests/log/test_mending.py",
    "tests/log/test_power_cut.py", "tests/log/test_log_model.py", "tests/log/test_cipher.py",
    "tests/codec/test_intervals.py", "tests/codec/test_receiver_edges.py", "tests/codec/test_receiver.py",
    "tests/upstream/test_receive_edges.py", "tests/upstream/test_receive.py",
    "tests/edge/test_outbox.py", "tests/edge/test_outbox_edges.py", "tests/edge/test_notices.py", "tests/edge/test_notices_at_start.py", "tests/edge/test_recovery.py", "tests/edge/test_recovery_edges.py",
    "tests/edge/test_pipeline_damage.py", "tests/edge/test_outbox_gathers.py", "tests/edge/test_repeats.py",
    "tests/edge/test_swap.py", "tests/edge/test_fates.py", "tests/edge/test_deferral.py", "tests/edge/test_pipeline_faults.py", "tests/edge/test_pipeline_traps.py",
)
CYTHON_TESTS = ("tests/log/test_record.py", "tests/log/test_checkpoint.py", "tests/log/test_checkpoint_edges.py")
