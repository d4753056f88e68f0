"""Model Tailor (Zhu et al., ICML 2024) and its anchored form: a sparse, decorated patch.

Every parameter is a linear map on some input, and the second moment of that input says what a
change of the parameter does to the output. From the bottom: `moments` solves with such moments,
`scores` picks the entries to keep, `decorate` and `sweep` correct them for what was reverted, and
`matrix` puts these together for one map, `points` for a sweep. `sites` finds a model's maps,
`capture` records their moments, `learning` does both for a tuned checkpoint. `patching` makes
tensors to store, `measures` and `plots` say what was lost, `presets` names choices, `job` and
`calibration` find and check the inputs.
"""
