// How numbers are written, as in ifguide/ui/format.py.
const whole = (value) => Math.round(value).toLocaleString("en");

function scoreText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const digits = size >= 1000 || size < 0.001 ? size.toExponential(2) : size.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : 3);
  return (value < 0 ? "−" : "+") + digits.replace("e-", "e−").replace("e+", "e");
}

function shareText(part, of, digits = 1) {
  const value = of ? part / of : 0;
  const step = 10 ** -(digits + 2);
  if (value > 0 && value < step / 2) return `<${(step * 100).toFixed(digits)}%`;
  return `${(value * 100).toFixed(digits)}%`;
}

const plural = (value, noun, many = `${noun}s`) => `${whole(value)} ${Math.round(value) === 1 ? noun : many}`;

// A typed number, perhaps with spaces, thousands commas, a per cent sign or the typographic minus; anything else is NaN.
function readNumber(text) {
  const plain = text.replace(/[\s,%]/g, "").replace("−", "-");
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}
