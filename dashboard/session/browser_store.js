// Reads and writes one place of localStorage. `data.text` is null until the server knows what the
// place holds, and empty where it shall hold nothing. A browser that keeps nothing is no error.
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
  const { place, prefix, most, text } = data;
  try {
    const held = entry(place);
    if (text === null) {
      if (held !== null) setTriggerValue("held", held.text);
    } else if (text === "") {
      localStorage.removeItem(place);
    } else if (held?.text !== text) {
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
