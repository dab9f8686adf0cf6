// Dark or light: the system's wish, unless the switch was used. Runs before the page is drawn, so that nothing flashes.
"use strict";

(() => {
  const KEY = "tickcast-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is switched off: the system's wish it is
    }
  }

  function apply() {
    document.documentElement.dataset.theme = stored() ?? (system.matches ? "dark" : "light");
    dispatchEvent(new Event("theme"));
  }

  globalThis.switchTheme = () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      if (other === (system.matches ? "dark" : "light")) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, other);
    } catch {
      document.documentElement.dataset.theme = other;
      dispatchEvent(new Event("theme"));
      return;
    }
    apply();
  };

  system.addEventListener("change", apply);
  apply();
})();
