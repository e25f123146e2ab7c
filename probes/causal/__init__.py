"""Is a concept used? The causal questions on plain arrays, for any policy with image observations.

`data`: what is asked about. `subspaces`: the directions put to the test, and their controls.
`interventions`: what the policy does when they are edited. `protocol`: the claims, and the report.
`games`: the concepts that come with the package; `maze`, `heist` and `coinrun` have them.
"""
