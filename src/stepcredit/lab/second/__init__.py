"""The second lab: longer numbers, three styles, detours, checks, unsystematic slips and corrections."""
