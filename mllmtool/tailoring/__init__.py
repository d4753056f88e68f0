"""Model Tailor (Zhu et al., ICML 2024) and its anchored form: a sparse, decorated patch.

Every parameter is a linear map on some input, and the inputs' second moment measures what a change
of the parameter does to the output. `moments` holds such moments and `capture` records them,
`scores` picks the entries to keep, `decorate` and `sweep` correct them for what was reverted,
`matrix` puts these together for one map, `presets` names choices.
"""
