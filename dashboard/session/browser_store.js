// Reads and writes one place of localStorage. `data.text` is null until the server knows what the
// place holds, and empty where it shall hold nothing. What another tab wrote since this one looked
// goes to the server first, which adds it to its own, unless `data.forget` lets go of all. A browser
// that keeps nothing is no error.
const known = new Map(); // place -> what this tab read or wrote last

function entry(place) {
  const raw = localStorage.getItem(place);
  if (raw === null) return null;
  try {
    const { at, text } = JSON.parse(raw);
    return { at: Number(at) || 0, text: String(text) };
  } catch {
    return { at: 0, text: raw };
  }
}

export default function ({ data, setTriggerValue }) {
  const { place, prefix, most, text, forget } = data;
  try {
    const held = entry(place);
    const there = held?.text ?? "";
    const before = known.get(place) ?? "";
    if (text === null) {
      known.set(place, there);
      if (held !== null) setTriggerValue("held", there);
    } else if (text === before) {
      // Nothing changed here, so that what another tab did stays.
    } else if (!forget && ![before, text, ""].includes(there)) {
      known.set(place, there);
      setTriggerValue("held", there);
    } else if (text === "") {
      known.set(place, "");
      localStorage.removeItem(place);
    } else {
      known.set(place, text);
      localStorage.setItem(place, JSON.stringify({ at: Date.now(), text }));
      const others = Object.keys(localStorage)
        .filter((name) => name.startsWith(prefix) && name !== place)
        .sort((one, other) => entry(other).at - entry(one).at);
      for (const name of others.slice(most - 1)) localStorage.removeItem(name);
    }
  } catch (error) {
    console.warn("Quantscape keeps nothing in this browser:", error.message);
  }
}
