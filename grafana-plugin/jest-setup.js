// Jest setup provided by Grafana scaffolding
import './.config/jest-setup';

global.IntersectionObserver = class {
  observe() {}
  unobserve() {}
  disconnect() {}
};

// jsdom draws nothing, and Combobox measures its texts.
HTMLCanvasElement.prototype.getContext = () => ({ measureText: (text) => ({ width: 8 * text.length }) });
