"""Predicted times of the CUDA kernels: docs/development/cuda.md. Imports nothing: tools read this without torch."""

# µs on an H100, float32, forward: from a reading of the kernels and their machine code, not measured.
PREDICTED: dict[tuple[str, tuple[int, ...]], float] = {
    ("entmax15", (64, 32_000)): 15,
    ("entmax15", (1024, 1024)): 6.5,
    ("entmax15", (65_536, 512)): 140,
    ("entmax15", (1024, 32_768)): 130,
    ("entmax15", (8, 128_256)): 16,
    ("entmax15", (1, 1_000_000)): 25,
    ("entmax15", (262_144, 8)): 10,
    ("gumbel_softmax", (1024, 1024)): 7.5,
    ("gumbel_softmax", (4_194_304, 8)): 150,
    ("gumbel_softmax", (8, 128_256)): 12,
    ("gae", (1024, 1024)): 15,
    ("gae", (128, 262_144)): 255,
    ("categorical_projection", (32_768, 51)): 30,
    ("entmax_bisect", (1024, 1024)): 30,
    ("token_log_probs", (4096, 50_257)): 300,
    ("token_log_probs", (1024, 151_936)): 230,
    ("mixed_op", (8, 1_048_576)): 15,
}
