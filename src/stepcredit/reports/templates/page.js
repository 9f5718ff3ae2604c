(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const show = () => { button.textContent = current() === "dark" ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    try { localStorage.setItem("stepcredit-theme", root.dataset.theme); } catch (error) { /* not kept */ }
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();

  // Tabs: without scripts, and on paper, every panel is shown one under the other.
  document.querySelectorAll("[data-tabs]").forEach((group) => {
    const panels = [...group.querySelectorAll(":scope > [data-tab]")];
    if (panels.length < 2) return;
    const list = document.createElement("div");
    list.className = "tablist";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", group.dataset.tabs);
    const tabs = panels.map((panel, index) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.id = `${panel.id}-tab`;
      tab.textContent = panel.dataset.tab;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", () => select(index));
      tab.addEventListener("keydown", (event) => {
        const last = panels.length - 1;
        const to = { ArrowRight: index === last ? 0 : index + 1, ArrowLeft: index === 0 ? last : index - 1,
          Home: 0, End: last }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        select(to);
        tabs[to].focus();
      });
      list.append(tab);
      return tab;
    });
    const select = (chosen) => panels.forEach((panel, index) => {
      panel.classList.toggle("unselected", index !== chosen);
      tabs[index].setAttribute("aria-selected", String(index === chosen));
      tabs[index].tabIndex = index === chosen ? 0 : -1;
    });
    group.prepend(list);
    group.classList.add("tabbed");
    select(0);
  });
})();
