"""The mathematics: pure functions on tensors, torch only. Each returns per-token (M,) or per-completion (C,) values; reductions are the caller's."""
