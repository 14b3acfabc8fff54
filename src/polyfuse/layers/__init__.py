"""Pure building blocks: functions of tensors, which know nothing of modalities."""
