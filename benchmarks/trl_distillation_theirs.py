"""TRL's side of `trl_distillation.py`: runs with the interpreter of its own environment and knows nothing of fedoel.

It reads a task, says on its standard output what it has done, and goes on when it is told to, so that whoever started
it keeps the time and the memory.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

Task = dict[str, Any]


def main(arm: str, path: str) -> None:
    """Load the model, then run turns of steps, each when it is asked for."""
    talk = Talk()
    task = json.loads(Path(path).read_text(encoding="utf-8"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(task["threads"])
    tokenizer = AutoTokenizer.from_pretrained(task["model"], local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(task["model"], local_files_only=True, dtype=torch.float32)
    trainer_of = TRAINERS[arm]  # TRL is imported before anything is measured
    make = trainer_of(task)
    for weight in model.parameters():  # they are mapped from the file and take memory only once they are read
        weight.sum()
    talk.say("loaded", versions={name: version(name) for name in ("trl", "torch", "transformers", "peft")})
    talk.wait()
    trainer = make(model, tokenizer)
    trainer.add_callback(_turns(talk, task["turns"]))
    trainer.train()
    talk.wait()  # a process that has ended has no peak of memory to read


class Talk:
    """Lines of JSON to whoever started this; what libraries print goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, event: str, **more: Any) -> None:
        print(json.dumps({"event": event, **more}), file=self._out, flush=True)

    def wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit("nobody is listening any more")


def _turns(talk: Talk, turns: list[int]) -> Any:
    from transformers import TrainerCallback

    class Turns(TrainerCallback):  # type: ignore[misc]
        """Waits before every turn, and speaks after every step and every turn."""

        def __init__(self) -> None:
            self.starts = [sum(turns[:n]) for n in range(len(turns))]
            self.losses: list[float] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in self.starts:
                talk.say("ready")
                talk.wait()
                self.losses.clear()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:  # after every step, but not in the summary at the end
                self.losses.append(float(logs["loss"]))
                talk.say("step")
                if state.global_step in (*self.starts, sum(turns)):
                    talk.say("turn", losses=self.losses)

    return Turns()


def _common(task: Task) -> dict[str, Any]:
    """What both trainers are told: one pass over the prompts in their order, single precision, no logging elsewhere."""
    return {
        "output_dir": task["scratch"], "per_device_train_batch_size": task["batch"], "max_steps": sum(task["turns"]),
        "learning_rate": task["learning_rate"], "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
        "weight_decay": 0.0, "temperature": 1.0, "use_cpu": True, "bf16": False, "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential", "remove_unused_columns": False, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip


def _lora(task: Task, model: Any) -> Any:
    """The same LoRA shape as fedoel's: all linear modules of the top layers."""
    import torch
    from peft import LoraConfig

    modules = model.model.layers[0].named_modules()
    names = {name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)}
    layers = model.config.num_hidden_layers
    return LoraConfig(
        r=task["rank"], lora_alpha=2 * task["rank"], target_modules=sorted(names),
        layers_to_transform=list(range(layers - task["layers"], layers)), layers_pattern="layers",
        task_type="CAUSAL_LM",
    )  # fmt: skip


def _chat(prompt: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "system", "content": prompt["system"]}, {"role": "user", "content": prompt["user"]}]


def sdft(task: Task, checkpointing: bool = False) -> Any:
    """Self-distillation: one model, whose bare weights are the teacher; only the teacher reads the context."""
    from datasets import Dataset
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    rows = [{"prompt": _chat(prompt), "privileged_context": task["context"]} for prompt in task["prompts"]]
    settings = SDFTConfig(
        **_common(task), gradient_checkpointing=checkpointing, distillation_mode="full_logits", distillation_alpha=1.0,
        teacher_model_kind="base", teacher_prompt_template="{privileged_context}\n{prompt}", num_generations=1,
        max_prompt_length=None, max_completion_length=task["tokens"], shuffle_dataset=False,
    )  # fmt: skip

    def make(model: Any, tokenizer: Any) -> Any:
        return SDFTTrainer(
            model, settings, Dataset.from_list(rows), processing_class=tokenizer, peft_config=_lora(task, model)
        )

    return make


def gkd(task: Task) -> Any:
    """Generalised knowledge distillation: a second model is the teacher, which reads the student's own prompt."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    reply = {"role": "assistant", "content": "look"}  # the trainer puts what the student says in its place
    rows = [{"messages": [*_chat(prompt), reply]} for prompt in task["prompts"]]
    settings = GKDConfig(
        **_common(task), gradient_checkpointing=False, lmbda=1.0, beta=1.0, max_new_tokens=task["tokens"],
        max_length=None, shuffle_dataset=False,
    )  # fmt: skip

    def make(model: Any, tokenizer: Any) -> Any:
        teacher = AutoModelForCausalLM.from_pretrained(task["model"], local_files_only=True, dtype=model.dtype)
        rest = {"processing_class": tokenizer, "peft_config": _lora(task, model)}
        return GKDTrainer(model, teacher, settings, train_dataset=Dataset.from_list(rows), **rest)

    return make


TRAINERS = {
    "trl-sdft": sdft,
    "trl-sdft-checkpointing": lambda task: sdft(task, checkpointing=True),
    "trl-gkd": gkd,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
