"""Which settings belong together: in help, in reading data, in reading long texts."""

READING = ("long_texts", "most_windows", "stride", "read_length")  # what models read when they predict
READ_BY = (  # how `load_dataset` reads the data
    *("columns", "encoding", "data_config", "cut", "skip_bad_rows", "drop_duplicates", "drop_leaks"),
    *("unlabelled", "unlabelled_rows", "max_unlabelled", "soft_labels", "probability_labels"),
    *("label_columns", "label_separator"),
)
GROUPS = {  # of help and of docs/settings.md, the everyday ones first
    "Everyday settings": ("columns", "base", "student", "max_length", "method", "baseline", "seed"),
    "Classes": ("labels", "class_weights"),
    "Data and checks": (
        *("encoding", "data_config", "cut", "skip_bad_rows", "drop_duplicates", "drop_leaks", "allow_weak_teacher"),
    ),
    "Several labels (multi-label)": ("label_columns", "label_separator"),
    "Unlabelled text": ("unlabelled", "unlabelled_rows", "max_unlabelled", "min_confidence", "max_share"),
    "Soft labels": ("soft_labels", "probability_labels", "gold_weight"),
    "Long texts": (*READING, "windows", "teacher_windows", "crops"),
    "Teacher and instance weights": (
        *("teacher", "teacher_labels", "teacher_epochs", "teacher_learning_rate", "teacher_tries"),
        *("lora_rank", "lora_targets", "gradient_checkpointing", "gradient_accumulation"),
        *("weights", "alpha", "domain_loss", "gamma1", "heads"),
    ),
    "Students": (
        *("student_init", "shared_epochs", "shared_learning_rate", "stages", "match_epochs"),
        *("match_learning_rate", "predict_epochs", "predict_learning_rate", "baseline_learning_rate"),
        *("terms", "gamma2", "temperature", "expertise", "attention", "layer_map", "start_layers"),
    ),
    "Optimisation": ("batch_size", "warmup", "weight_decay", "dropout", "attention_dropout"),
    "Cost": ("precision", "cache_budget", "keep_cache", "track"),
}
