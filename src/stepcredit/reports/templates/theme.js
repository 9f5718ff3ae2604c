// Before anything is painted: the theme chosen on an earlier visit, if the browser lets files keep one.
try {
  const kept = localStorage.getItem("stepcredit-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch (error) { /* storage is off: the system's theme it is */ }
