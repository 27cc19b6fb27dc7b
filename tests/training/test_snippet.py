"""The snippet people know, with only the import changed and no other flag, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]
SNIPPET = """
import sys
sys.path.insert(0, {tests!r})
import tiny
model, tokenizer = tiny.model(), tiny.tokenizer()
rows = [{{"prompt": f"Pick a color, {{i}}.", "chosen": "Blue it is.", "rejected": "No."}} for i in range(9)]
{dataset}

from accord import DPOTrainer, DPOConfig

trainer = DPOTrainer(model=model, args=DPOConfig(beta=0.1, max_length=1024, per_device_train_batch_size=4, gradient_accumulation_steps=4, learning_rate=5e-7, output_dir={folder!r}), train_dataset=dataset, tokenizer=tokenizer)
trainer.train()
first = trainer.train_units[0]
print("PROMPT", repr(tokenizer.decode(first.prompt_ids)))
print("LOSS", trainer.log_history[0]["loss"])
trainer.save_model()
"""


@pytest.mark.parametrize(
    "dataset", ["dataset = rows", "import datasets; dataset = datasets.Dataset.from_list(rows)"], ids=["list", "datasets.Dataset"]
)
def test_the_snippet_runs_as_it_stands(dataset: str, tmp_path: Path) -> None:
    code = SNIPPET.format(tests=str(HERE), dataset=dataset, folder=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    # Policy and reference are the same model before the first step: log 2, exactly what sigmoid DPO starts from.
    assert abs(float(done.stdout.split("LOSS ")[1].split()[0]) - 0.693147) < 1e-4
    assert "<|start|>user\\nPick a color, 0.<|end|>" in done.stdout
    assert done.stderr.count("The chat template of") == 1
    assert done.stderr.count("DPOConfig: unlike TRL's, on purpose") == 1
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 0
